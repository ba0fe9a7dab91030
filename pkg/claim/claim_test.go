package claim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Three jobs that need the same units build each once.
func TestEachUnitOnce(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		for i := range 3 {
			f.host(fmt.Sprint("host", i))
		}
		began := time.Now()
		f.all()
		f.once()
		f.served()
		// The way from unit 0 to unit 3 takes 300 s.
		if took := time.Since(began); took > 360*time.Second {
			t.Errorf("it took %s", took)
		}
		if f.memory.creates > 4+4+4+3 { // claims, done documents, renewals, races at the start
			t.Errorf("%d creations, %d of them refused", f.memory.creates, f.memory.refused)
		}
	})
}

// A helper builds what others need, takes only what it needs for that, and ends when it has waited
// too long for more; a job that has its own goes on with what is ready.
func TestHelper(t *testing.T) {
	run(t, [][]int{{}, {}, {0}, {0}, {1}}, func(f *fleet) {
		h := f.host("host")
		h.Needs = []bool{true, false, true, true, false}
		helper := f.helper("helper")
		f.all()
		f.once()
		f.served()
		for _, u := range helper.taken {
			if u != 0 {
				t.Errorf("the helper takes unit %d", u)
			}
		}
		if len(helper.outcome.Units) == 0 || helper.rests > 0 {
			t.Errorf("%+v", helper.outcome)
		}
	})
	run(t, [][]int{{}, {0}}, func(f *fleet) { // for which nothing gets ready
		helper := f.helper("helper")
		helper.May = []bool{false, true}
		began := time.Now()
		helper.start()
		time.Sleep(6 * time.Minute)
		helper.cancel()
		f.wait.Wait()
		if waited := helper.outcome.Waited; waited < 5*time.Minute || waited > time.Since(began)-30*time.Second {
			t.Errorf("waited %s", waited)
		}
	})
	run(t, [][]int{{}, {0}, {}}, func(f *fleet) {
		h := f.host("host")
		h.Needs = []bool{true, false, false}
		f.all()
		f.wait.Go(func() { h.Help(h.context) })
		f.wait.Wait()
		f.once()
	})
}

// A job takes what it needs itself, and what it needs to build a unit that it has claimed, and nothing
// else: not what the unit of another job was built from.
func TestTakesWhatItNeeds(t *testing.T) {
	run(t, [][]int{{}, {0}}, func(f *fleet) {
		first := f.host("first")
		first.Needs, first.May = []bool{true, false}, []bool{true, false}
		f.all()
		for _, name := range []string{"second", "third"} {
			f.host(name).Needs = []bool{false, true}
		}
		f.all()
		f.once()
		var taken []int
		for _, h := range f.hosts[1:] {
			taken = append(taken, len(h.taken))
		}
		slices.Sort(taken)
		if !slices.Equal(taken, []int{1, 1}) {
			t.Errorf("units were taken %d times", taken)
		}
	})
}

// Workers that start together rarely want the same unit: a refused creation may count for the limit of
// the service. Which they want is random, so that only the mean of many runs says something.
func TestFewCreations(t *testing.T) {
	const runs, most = 16, 22
	refused := 0
	for range runs {
		run(t, make([][]int, 12), func(f *fleet) {
			f.memory.lookup = 250 * time.Millisecond
			for i := range 16 {
				f.host(fmt.Sprint("host", i))
			}
			f.all()
			f.once()
			f.served()
			refused += f.memory.refused
		})
	}
	if refused > most*runs {
		t.Errorf("%d creations a run were refused, want at most %d", refused/runs, most)
	}
}

// A worker without a cache, or outside of a run, claims nothing.
func TestNoRun(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		f.host("no cache").Docs.Cache = nil
		f.host("no run").Docs.Run = 0
		f.host("no documents").Docs = nil
		began := time.Now()
		f.all()
		if len(f.built) > 0 || f.memory.creates > 0 || time.Since(began) > 0 {
			t.Errorf("built %v, %d creations", f.built, f.memory.creates)
		}
	})
}
