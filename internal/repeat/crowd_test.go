package repeat

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A thousand things fail for one cause, each again and again, until they do not.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all Crowds[string, int]
		// joins has all of them fail, and returns how many there were when it was told aloud, and
		// how many failed for the first time.
		joins := func(cause string, from, to int) (aloud []int, firsts int) {
			for i := from; i < to; i++ {
				together, told, first := all.Join(cause, i)
				if told {
					aloud = append(aloud, together)
				}
				if first {
					firsts++
				}
			}
			return aloud, firsts
		}
		check := func(what string, aloud []int, firsts int, wantAloud []int, wantFirsts int) {
			t.Helper()
			if !slices.Equal(aloud, wantAloud) || firsts != wantFirsts {
				t.Errorf("%s: told at %v, %d for the first time; want %v and %d", what, aloud, firsts, wantAloud, wantFirsts)
			}
		}
		aloud, firsts := joins("waf is away", 0, 1000)
		check("at first", aloud, firsts, []int{1, 2, 3, 4, 5, 10, 100, 1000}, 1000)
		time.Sleep(Every / 2)
		aloud, firsts = joins("waf is away", 0, 1000)
		check("again", aloud, firsts, nil, 0)
		time.Sleep(Every / 2)
		aloud, firsts = joins("waf is away", 0, 1000)
		check("an hour later", aloud, firsts, []int{1000}, 0)
		aloud, firsts = joins("apig is away", 0, 2)
		check("some for another cause", aloud, firsts, []int{1, 2}, 2)
		if together, _, _ := all.Join("waf is away", 500); together != 998 {
			t.Errorf("%d are left of 1000", together)
		}
		for i := range 1000 {
			all.Leave(i)
		}
		if len(all.all) != 0 || len(all.in) != 0 {
			t.Errorf("%d crowds, %d in them, after all left", len(all.all), len(all.in))
		}
		aloud, firsts = joins("waf is away", 0, 6)
		check("after all left", aloud, firsts, []int{1, 2, 3, 4, 5}, 6)
	})
}
