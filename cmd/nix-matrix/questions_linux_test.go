package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// A narinfoServer is a binary cache that has paths, and counts what it is asked.
type narinfoServer struct {
	*httptest.Server
	mu    sync.Mutex
	infos map[string]string
	asked map[string]int
}

// serveNarinfos serves paths, given with their references.
func serveNarinfos(t *testing.T, paths map[string][]string) *narinfoServer {
	s := &narinfoServer{infos: map[string]string{}, asked: map[string]int{}}
	for path, references := range paths {
		hash, _, _ := strings.Cut(filepath.Base(path), "-")
		for i := range references {
			references[i] = filepath.Base(references[i])
		}
		s.infos["/"+hash+".narinfo"] = fmt.Sprintf("StorePath: %s\nURL: nar/%s.nar\nCompression: none\nNarHash: sha256:%052d\nNarSize: 1000\nReferences: %s\n",
			path, hash, 0, strings.Join(references, " "))
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		switch info, ok := s.infos[r.URL.Path]; {
		case ok:
			_, _ = fmt.Fprint(w, info)
		case r.URL.Path == "/nix-cache-info":
			_, _ = fmt.Fprint(w, "StoreDir: /nix/store\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// take returns how many questions there were since it was called, and those that were asked
// more than once.
func (s *narinfoServer) take() (all int, again []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, n := range s.asked {
		all += n
		if n > 1 {
			again = append(again, fmt.Sprint(path, " ", n))
		}
	}
	s.asked = map[string]int{}
	return all, again
}

// newHosts are hosts of which some derivations are new, as after a change of a NixOS
// configuration, and whose packages are in a binary cache. These need compilers, which are
// there too and which nobody has to know of.
const newHosts = `
let
  drv = name: inputs: derivation { inherit name inputs; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; };
  chain = name: length: needs:
    let all = builtins.genList (n: drv "cached-${name}-${toString n}" (needs n ++ (if n == 0 then [ ] else [ (builtins.elemAt all (n - 1)) ]))) length;
    in builtins.elemAt all;
  tool = chain "tool" 300 (_: [ ]);
  lib = chain "lib" 100 (n: [ (tool (200 + n)) ]);
  app = n: drv "cached-app-${toString n}" [ (lib 70) (tool (200 + n)) ];
  new = host: n: drv "new-${host}-${toString n}" ([ (app n) (lib n) ] ++ (if n == 0 then [ ] else [ (new host (n - 1)) ]));
  host = name: drv "nixos-system-${name}" [ (new name 9) (drv "unit-${name}" [ (lib 95) ]) ];
in
{ a = host "a"; b = host "b"; }
`

// Discovery asks a binary cache what one dry run of Nix asks it, and each question once.
func TestQuestions(t *testing.T) {
	t.Parallel()
	testbench.PrivateNix(t)
	dir := t.TempDir()
	testbench.UseStore(t, filepath.Join(dir, "store"))
	write(t, filepath.Join(dir, "hosts.nix"), newHosts)
	bin := testbench.NixPath(t, "2.34")
	homes := 0
	run := func(config, program string, args ...string) string {
		t.Helper()
		homes++
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `exec "$@"`, "sh", program}, args...)...) // of our PATH
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "NO_COLOR=1", "NIX_CONFIG=substituters = "+config,
			fmt.Sprintf("HOME=%s/home%d", dir, homes), fmt.Sprintf("XDG_CACHE_HOME=%s/home%d", dir, homes)) // nothing is remembered
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	hosts := strings.Fields(run("", "sh", "-c", "nix-instantiate -A a -A b hosts.nix 2>/dev/null"))
	for i, host := range hosts {
		hosts[i], _, _ = strings.Cut(host, "!")
	}
	paths := map[string][]string{}
	byName := map[string]string{}
	for _, path := range strings.Fields(run("", "sh", "-c", "nix-store --query --outputs /nix/store/*-cached-*.drv")) {
		_, name, _ := strings.Cut(path, "-")
		byName[name], paths[path] = path, nil
	}
	for n := 1; byName[fmt.Sprint("cached-lib-", n)] != ""; n++ {
		lib := byName[fmt.Sprint("cached-lib-", n)]
		paths[lib] = []string{byName[fmt.Sprint("cached-lib-", n-1)]}
	}
	for n := 0; byName[fmt.Sprint("cached-app-", n)] != ""; n++ {
		paths[byName[fmt.Sprint("cached-app-", n)]] = []string{byName["cached-lib-70"]}
	}
	server := serveNarinfos(t, paths)
	address := server.URL + "?trusted=1"

	dry := run(address, "nix-store", append([]string{"--realise", "--dry-run"}, hosts...)...)
	theirs, _ := server.take()
	if !strings.Contains(dry, "-new-a-9.drv") || strings.Contains(dry, "cached-lib-95.drv") || theirs < 100 {
		t.Fatalf("the dry run asked %d questions:\n%s", theirs, dry)
	}
	said := run(address, "nix-matrix", "discover", "-f", "hosts.nix", "--cache", "dir:"+filepath.Join(dir, "cache"))
	if !strings.Contains(said, "24 derivations to build") {
		t.Error(said)
	}
	ours, again := server.take()
	if len(again) > 0 {
		t.Errorf("asked more than once: %v", again)
	}
	if ours*10 > theirs*11 {
		t.Errorf("discovery asked %d questions, a dry run of Nix %d", ours, theirs)
	}
	t.Logf("discovery asked %d questions, a dry run of Nix %d", ours, theirs)
}
