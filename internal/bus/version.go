package bus

import (
	"fmt"
	"strings"
)

// oldestMinor is the 2.9 of the first NATS servers with discard_new_per_subject. An older one
// takes the setting without a word, and a second message of an assignment too.
const oldestMinor = 9

// outdated says why a server of this version cannot be used. One that cannot be read is
// somebody's own, and is taken for new enough.
func outdated(version string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &major, &minor); n < 2 {
		return nil
	}
	if major > 2 || major == 2 && minor >= oldestMinor {
		return nil
	}
	return fmt.Errorf("the NATS server is version %s; rotatord needs 2.%d or later", version, oldestMinor)
}
