package progress

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

func TestASilenceIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written bytes.Buffer
		d := New(&written, env("", ""), marked)
		see := func(kind nix.EventKind, name string) {
			d.See(nix.Event{Kind: kind, Time: time.Now(), Path: start + name}, true)
		}
		after := func(wait time.Duration, want string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			if diff := cmp.Diff(want, written.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", time.Now().Format(time.TimeOnly), diff)
			}
			written.Reset()
		}
		d.Doing("evaluating %s", ".")
		after(59*time.Second, "")
		after(time.Second, "[still evaluating . after 1m00s]\n")
		after(30*time.Second, "")
		d.Printf("so far, so good")
		after(time.Second, "[so far, so good]\n")
		after(58*time.Second, "")
		after(time.Second, "[still evaluating . after 2m30s]\n")

		see(nix.BuildStarted, "linux-6.6.drv")
		see(nix.FetchStarted, "glibc")
		after(10*time.Second, "[linux-6.6: building]\n[glibc: fetching]\n")
		see(nix.BuildStarted, "foo.drv")
		after(59*time.Second, "[foo: building]\n")
		after(time.Second, "[still building after 1m10s: linux-6.6 (1m10s), foo (1m00s); fetching after 1m10s: glibc (1m10s)]\n")
		see(nix.BuildStopped, "foo.drv")
		see(nix.BuildStopped, "linux-6.6.drv")
		after(time.Minute, "[still fetching after 2m10s: glibc (2m10s)]\n")
		see(nix.FetchStopped, "glibc")
		after(10*time.Minute, "")
		d.Doing("pushing to cachix:fleet")
		after(time.Minute, "[still pushing to cachix:fleet after 1m00s]\n")
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			see(nix.BuildStarted, name+".drv")
		}
		after(0, "[a: building]\n[b: building]\n[c: building]\n[d: building]\n[e: building]\n[f: building]\n[g: building]\n")
		after(time.Minute, "[still building after 1m00s: a (1m00s), b (1m00s), c (1m00s), d (1m00s), e (1m00s), 2 more]\n")
		d.Close()
		after(time.Hour, "")
		d = New(&written, env("", ""), marked)
		d.Close()
		d.Doing("nothing") // starts nothing: synctest would complain
	})
}

// The log of a build that ended without a message from Nix is shown even if no event follows.
func TestASilenceSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written bytes.Buffer
		d := New(&written, env("", ""), marked)
		defer d.Close()
		l := &ciLog{Display: d, at: time.Now().Add(-longBuild)}
		l.build("a", longBuild, burst+1)
		time.Sleep(time.Minute)
		synctest.Wait()
		d.mu.Lock()
		got := written.String()
		d.mu.Unlock()
		if want := "[a: built in 10s]\n" + rest("  [line %d]", burst+1); !strings.HasSuffix(got, want) {
			t.Error(cmp.Diff(want, got))
		}
	})
}

// A terminal has its live line.
func TestATerminalSaysItAnyway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		d := New(&screen, env("", ""), marked)
		d.terminal(func() int { return 80 }, time.Hour)
		d.Doing("evaluating")
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		d.Close()
		if got, want := screen.String(), "[evaluating]"+gone; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
