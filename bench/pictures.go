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
		{"performance-change.svg", "What one change and one look cost, over the number of certificates", []panel{
			{"Rename to answered scrape", "ms", []line{
				{"p99", "change", "rename to answered scrape, p99", false},
				{"p50", "change", "rename to answered scrape, p50", false},
				{"rename to event, p50", "change", "rename to answered scrape, p50", true},
			}},
			{"First scrape after one change", "ms of processor time", []line{
				{"after a change", "change", "first gzip scrape after one change, CPU", false},
				{"the next one", "change", "first gzip scrape after one change, CPU", true},
			}},
			{"One look at all, nothing new", "s of processor time", []line{
				{"rotatord", "change", "one look at all, nothing new, CPU", false},
				{"list and lstat all", "change", "one look at all, nothing new, CPU", true},
			}},
		}},
		{"performance-rotation.svg", "Mass rotation, comparison and journal over the number of certificates", []panel{
			{"All replaced, 50 ms a call", "s", []line{
				{"rotatord", "bulk", "one policy, 50ms a call: time", false},
				{"calls x latency / concurrency", "bulk", "one policy, 50ms a call: time", true},
			}},
			{"All compared with the cloud", "s of processor time", []line{
				{"asked", "drift", "all compared, asked, CPU", false},
				{"regularly", "drift", "all compared, regularly, CPU", false},
				{"plain client and simulator, asked", "drift", "all compared, asked, CPU", true},
			}},
			{"What the journal adds to the start", "s", []line{
				{"rotatord", "journal", "what the records add", false},
				{"read by the client library", "journal", "what the records add", true},
			}},
		}},
	}
}
