package nix

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// A store says whether it trusts this user, so that a refusal is known before anything is sent.
// Nix 2.8 does not say so.
func TestTrust(t *testing.T) {
	eachDaemon(t, func(t *testing.T, n *Nix) {
		says := n.Number != "2.8.0"
		is := func(n *Nix, want Trust) {
			t.Helper()
			if !says {
				want = TrustUnknown
			}
			if got := connect(t, n).Trust(); got != want {
				t.Errorf("the trust is %d, not %d", got, want)
			}
			err := n.Distrust(t.Context())
			if distrusts := want == NotTrusted; errors.Is(err, ErrUntrusted) != distrusts || !distrusts && err != nil {
				t.Errorf("distrust %t: %v", distrusts, err)
			}
		}
		is(n, Trusted)
		if err := n.RefusesUnproven(t.Context()); err != nil {
			t.Error(err)
		}
		there := daemon(t, n, "")
		is(there, NotTrusted)
		if err := there.RefusesUnproven(t.Context()); errors.Is(err, ErrUntrusted) != says {
			t.Errorf("got %v", err)
		}

		first, nar := file("first", "first")
		opened := false
		err := there.Add(t.Context(), []PathInfo{first}, func(PathInfo) (io.Reader, error) {
			opened = true
			return bytes.NewReader(nar), nil
		})
		if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), first.Path) || opened == says {
			t.Errorf("the path was read: %t, %v", opened, err)
		}
	})
}

// Where signatures are not required, a user need not be trusted.
func TestTrustWithoutSignatures(t *testing.T) {
	eachDaemon(t, func(t *testing.T, _ *Nix) {
		n := configured(t, "require-sigs = false")
		there := daemon(t, n, "")
		if err := there.RefusesUnproven(t.Context()); err != nil {
			t.Error(err)
		}
		first, nar := file("first", "first")
		if err := there.Add(t.Context(), []PathInfo{first}, from(map[string][]byte{first.Path: nar})); err != nil {
			t.Error(err)
		}
		if !isValid(t, there, first.Path) {
			t.Error("it was not added")
		}
	})
}

// An unknown value is not taken for trust.
func TestTrustUnclear(t *testing.T) {
	for trust, want := range map[uint64]Trust{0: TrustUnknown, 1: Trusted, 2: NotTrusted, 3: -1, 1 << 32: -1} {
		d := talk(t, func(r io.Reader, w io.Writer) {
			var q request
			q.numbers(serverMagic, 1<<8|38)
			q.texts("2.34")
			q.numbers(trust, messageLast)
			go func() { _, _ = q.WriteTo(w) }()
			_, _ = io.CopyN(io.Discard, r, 4*8)
		})
		switch err := d.hello(); {
		case want < 0 && (err == nil || d.Trust() != TrustUnknown):
			t.Errorf("%d: %d, %v", trust, d.Trust(), err)
		case want >= 0 && (err != nil || d.Trust() != want):
			t.Errorf("%d: %d, %v, want %d", trust, d.Trust(), err, want)
		}
	}
}

// The stand-in for Lix refuses what Lix refuses.
func TestLixIsStrict(t *testing.T) {
	eachOf(t, []string{"lix"}, func(t *testing.T, n *Nix) {
		say := func(numbers ...uint64) (answer []byte, err error) {
			var q request
			q.numbers(numbers...)
			cmd := n.command(t.Context(), "nix-daemon", raw("--stdio"))
			cmd.Stdin = &q
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, io.Discard
			err = n.run(cmd)
			return out.Bytes(), err
		}
		if _, err := say(clientMagic, 1<<8|34, 0, 0); err == nil || !strings.Contains(err.Error(), "the Nix client version is too old") {
			t.Errorf("protocol version 1.34: %v", err)
		}
		for op, want := range map[uint64]string{42: "RegisterDrvOutput is not supported in Lix", 99: "invalid operation 99"} {
			answer, err := say(clientMagic, 1<<8|38, 0, 0, op)
			if err == nil || !bytes.Contains(answer, []byte(want)) {
				t.Errorf("operation %d: %q, %v", op, answer, err)
			}
		}
		for _, args := range [][]string{{"path-info", "--json", "--json-format", "1"}, {"eval", "--json", ".#.a"}} {
			if out, err := n.output(t.Context(), "nix", raw(args...)); err == nil {
				t.Errorf("%q: %s", args, out)
			}
		}
		if n.String() != "Lix 2.94.0" {
			t.Errorf("it is %s", n)
		}
	})
}
