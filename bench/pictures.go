package main

// pictures are those of docs/performance.md.
func pictures() []picture {
	return []picture{
		{"performance-load.svg", "Processor time, wall time and memory over the number of certificates", []panel{
			{"Load and two scrapes", "s of processor time", []line{
				{"rotatord", "load", "flat: load and two scrapes, CPU", false},
				{"read, decode, parse leaves", "load", "flat: load and two scrapes, CPU", true},
			}},
			{"From start", "s", []line{
				{"to the first complete scrape", "load", "flat: start to first complete scrape", false},
				{"to ready", "load", "flat: start to ready", false},
			}},
			{"Memory", "MiB resident, embedded NATS in it", []line{
				{"after 20 scrapes", "load", "resident after 20 scrapes", false},
			}},
		}},
	}
}
