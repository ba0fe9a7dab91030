package nix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
)

// A file to add, with neither a signature nor a content address.
func file(name, content string) (PathInfo, []byte) {
	var q request
	q.texts("nix-archive-1", "(", "type", "regular", "contents", content, ")")
	sum := sha256.Sum256(q.Bytes())
	return PathInfo{
		Path:    fmt.Sprintf("/nix/store/%032d-%s", len(name), name),
		NarHash: hex.EncodeToString(sum[:]),
		NarSize: int64(q.Len()),
	}, q.Bytes()
}

// from opens NARs by path.
func from(nars map[string][]byte) func(PathInfo) (io.Reader, error) {
	return func(info PathInfo) (io.Reader, error) { return bytes.NewReader(nars[info.Path]), nil }
}

func isValid(t *testing.T, n *Nix, path string) bool {
	t.Helper()
	valid, err := n.Valid(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return valid[path]
}

// verify makes Nix check each file of the store.
func verify(t *testing.T, n *Nix) {
	t.Helper()
	if _, err := n.output(t.Context(), "nix-store", raw("--verify", "--check-contents")); err != nil {
		t.Error(err)
	}
}

// closure returns the metadata and NARs of some derivations, a source and two outputs, one of
// them signed by key.
func closure(t *testing.T, n *Nix) (infos []PathInfo, nars map[string][]byte, key string) {
	t.Helper()
	drvs, outs := recorded(t, n)
	realise(t, n, drvs["second"])
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("source"), 0o600); err != nil {
		t.Fatal(err)
	}
	takes := instantiate(t, n, `{ takes = derivation { name = "takes"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ `+source+` ]; }; }`)["takes"]
	key = sign(t, n, outs["second"])
	paths, err := n.Requisites(t.Context(), takes, drvs["needsBoth"], outs["second"])
	if err != nil {
		t.Fatal(err)
	}
	if infos, err = n.FullInfo(t.Context(), paths...); err != nil {
		t.Fatal(err)
	}
	for i := range infos { // only the store that built a path has it set
		infos[i].Ultimate = false
	}
	nars = map[string][]byte{}
	for _, path := range paths {
		var nar bytes.Buffer
		if err := n.dump(t.Context(), &nar, path); err != nil {
			t.Fatal(err)
		}
		nars[path] = nar.Bytes()
	}
	return infos, nars, key
}

// sign signs a path with a key and returns its public key.
func sign(t *testing.T, n *Nix, path string) string {
	t.Helper()
	secret, public := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "public")
	if _, err := n.output(t.Context(), "nix-store", raw("--generate-binary-cache-key", "test-1", secret, public)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.output(t.Context(), "nix", raw("store", "sign", "--key-file", secret, path)); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

// The metadata in another store is the same as in this one.
func TestAdd(t *testing.T) {
	eachDaemon(t, func(t *testing.T, n *Nix) {
		infos, nars, _ := closure(t, n)
		var paths []string
		kinds := map[string]int{}
		for _, info := range infos {
			paths = append(paths, info.Path)
			kind, _, _ := strings.Cut(info.CA, ":")
			kinds[fmt.Sprint(kind, len(info.Signatures))]++
		}
		if kinds["text0"] == 0 || kinds["fixed0"] != 1 || kinds["1"] != 1 || kinds["0"] != 1 {
			t.Fatalf("content addresses and signatures: %v", kinds)
		}
		testbench.UseStore(t, t.TempDir())
		for range 2 { // the second time, all paths are valid
			if err := n.Add(t.Context(), infos, from(nars)); err != nil {
				t.Fatal(err)
			}
			got, err := n.FullInfo(t.Context(), paths...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(infos, got); diff != "" {
				t.Error(diff)
			}
		}
		verify(t, n)
		if err := n.Add(t.Context(), nil, nil); err != nil {
			t.Errorf("nothing: %v", err)
		}
		if _, err := n.FullInfo(t.Context(), "/nix/store/"+strings.Repeat("1", 32)+"-none"); err == nil || !strings.Contains(err.Error(), "is not valid") {
			t.Errorf("a missing path: %v", err)
		}
	})
}

// If a source fails, nothing is left of its path.
func TestAddBrokenSource(t *testing.T) {
	first, firstNAR := file("first", "first")
	second, secondNAR := file("second", strings.Repeat("second", 1<<18))
	boom := errors.New("boom")
	eachDaemon(t, func(t *testing.T, n *Nix) {
		for _, size := range []int{-1, 0, 100, 1 << 20, len(secondNAR) - 1} {
			for _, end := range []error{boom, io.EOF} {
				testbench.UseStore(t, t.TempDir())
				d, err := n.Connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				err = d.AddMultiple([]PathInfo{first, second}, func(info PathInfo) (io.Reader, error) {
					switch {
					case info.Path == first.Path:
						return bytes.NewReader(firstNAR), nil
					case size < 0:
						return nil, boom
					}
					return io.MultiReader(bytes.NewReader(secondNAR[:size]), iotest.ErrReader(end)), nil
				})
				if size >= 0 && end == io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) || (size < 0 || end == boom) && !errors.Is(err, boom) {
					t.Errorf("%v after %d bytes: %v", end, size, err)
				}
				if _, err := d.PathInfo(first.Path); err == nil {
					t.Error("the connection is still there")
				}
				_ = d.Close()
				if isValid(t, n, second.Path) {
					t.Errorf("half of a path was registered, %d bytes", size)
				}
				verify(t, n)
			}
		}
	})
}

// A refusal of the store is an error with its message, and earlier paths stay. With an invalid
// path, nothing is sent.
func TestAddRefused(t *testing.T) {
	first, firstNAR := file("first", "first")
	second, secondNAR := file("second", "second")
	evil := func(change func(*PathInfo)) PathInfo {
		info := second
		change(&info)
		return info
	}
	eachDaemon(t, func(t *testing.T, n *Nix) {
		for name, test := range map[string]struct {
			info PathInfo
			nar  []byte
			want string
		}{
			"hash":      {evil(func(i *PathInfo) { i.NarHash = first.NarHash }), secondNAR, "hash mismatch importing path"},
			"size":      {evil(func(i *PathInfo) { i.NarSize += 8 }), append(slices.Clip(secondNAR), make([]byte, 8)...), ""},
			"too short": {evil(func(i *PathInfo) { i.NarSize -= 8 }), secondNAR[:len(secondNAR)-8], ""},
			"address":   {evil(func(i *PathInfo) { i.CA = "fixed:r:sha256:" + strings.Repeat("0", 52) }), secondNAR, ""},
			"outside":   {evil(func(i *PathInfo) { i.Path = "/etc/passwd" }), secondNAR, "/etc/passwd"},
			"upwards":   {evil(func(i *PathInfo) { i.Path = "/nix/store/../../etc/evil" }), secondNAR, "evil"},
			"slash":     {evil(func(i *PathInfo) { i.Path += "/../../evil" }), secondNAR, "evil"},
			"newline":   {evil(func(i *PathInfo) { i.Path += "\n" }), secondNAR, ""},
			"reference": {evil(func(i *PathInfo) { i.References = []string{"/nix/store/none"} }), secondNAR, "none"},
			"deriver":   {evil(func(i *PathInfo) { i.Deriver = "../x" }), secondNAR, ""},
			"no NAR":    {second, bytes.Repeat([]byte("garbage!"), len(secondNAR)), ""},
		} {
			testbench.UseStore(t, t.TempDir())
			err := n.Add(t.Context(), []PathInfo{first, test.info}, func(info PathInfo) (io.Reader, error) {
				if info.Path == first.Path {
					return bytes.NewReader(firstNAR), nil
				}
				return bytes.NewReader(test.nar), nil
			})
			var told *serverError
			odd := test.info.check() != nil
			if errors.As(err, &told) == odd || err == nil || !strings.Contains(err.Error(), "cannot add to the store: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want %q", name, err, test.want)
			}
			if isValid(t, n, first.Path) == odd {
				t.Errorf("%s: the earlier path is valid: %t", name, odd)
			}
			if isValid(t, n, second.Path) {
				t.Errorf("%s: it was taken", name)
			}
			verify(t, n)
		}
	})
}

// A daemon that does not trust its user accepts only proven paths.
func TestAddUntrusted(t *testing.T) {
	eachDaemon(t, func(t *testing.T, n *Nix) {
		infos, nars, key := closure(t, n)
		testbench.UseStore(t, t.TempDir())
		there := daemon(t, n, key)
		add := func(infos ...PathInfo) error { return there.Add(t.Context(), infos, from(nars)) }
		refused := func(err error, path string) {
			t.Helper()
			if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "trusted-users") || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", path, err)
			}
			if isValid(t, there, path) {
				t.Errorf("%s was taken", path)
			}
		}
		var proven []PathInfo
		for _, info := range infos {
			switch {
			case info.CA != "":
				proven = append(proven, info)
			case info.Signatures == nil:
				refused(add(info), info.Path)
				if err := n.Add(t.Context(), []PathInfo{info}, from(nars)); err != nil { // past the daemon
					t.Fatal(err)
				}
			default:
				proven = append(proven, info)
				info.References = nil // they are part of the signed text
				refused(add(info), info.Path)
			}
		}
		if err := add(proven...); err != nil {
			t.Fatal(err)
		}
		got, err := there.FullInfo(t.Context(), paths(proven)...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(proven, got); diff != "" {
			t.Error(diff)
		}
		verify(t, n)
	})
}

func paths(infos []PathInfo) []string {
	var all []string
	for _, info := range infos {
		all = append(all, info.Path)
	}
	return all
}

// daemon starts a daemon that trusts only a key. It returns the Nix that connects to it.
func daemon(t *testing.T, n *Nix, key string, more ...Option) *Nix {
	t.Helper()
	// Some versions only start with a socket at this path.
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := n.WithOptions(Set("trusted-users", "nobody"), Set("trusted-public-keys", strings.Fields(key)...)).WithOptions(more...).command(ctx, "nix-daemon", raw())
	cmd.Stdout, cmd.Stderr = os.Stderr, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	for { // it does not say when it listens
		if conn, err := net.Dial("unix", "/nix/var/nix/daemon-socket/socket"); err == nil {
			_ = conn.Close()
			return n.WithStore("daemon")
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the daemon does not listen: %v", err)
		default:
			runtime.Gosched()
		}
	}
}

// Adding a large path takes little memory.
func TestAddLarge(t *testing.T) {
	const size = 64 << 20
	var head, tail request
	head.texts("nix-archive-1", "(", "type", "regular", "contents")
	head.numbers(size)
	tail.texts(")")
	open := func(PathInfo) (io.Reader, error) {
		return io.MultiReader(bytes.NewReader(head.Bytes()), io.LimitReader(zeros{}, size), bytes.NewReader(tail.Bytes())), nil
	}
	h := sha256.New()
	nar, _ := open(PathInfo{})
	length, err := io.Copy(h, nar)
	if err != nil {
		t.Fatal(err)
	}
	info := PathInfo{Path: "/nix/store/" + strings.Repeat("1", 32) + "-large", NarHash: hex.EncodeToString(h.Sum(nil)), NarSize: length}
	eachDaemon(t, func(t *testing.T, n *Nix) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := n.Add(t.Context(), []PathInfo{info}, open); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		// The total of all allocations, those of the other versions' tests too.
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("it took %d MB", used>>20)
		}
		if file, err := os.Stat(info.Path); err != nil || file.Size() != size {
			t.Errorf("got %v, %v", file, err)
		}
	})
}
