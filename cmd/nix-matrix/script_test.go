package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/claim"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nix-matrix": func() {
		fetchRetries = []time.Duration{time.Millisecond, time.Millisecond}
		provisoTime = 2 * time.Second
		nix.AnswerTimeout = 2 * time.Second
		removePause = time.Millisecond
		if pace, err := strconv.ParseFloat(os.Getenv("CLAIM_PACE"), 64); err == nil {
			claim.Pace = pace
		}
		if dir := os.Getenv("BINFMT_DIR"); dir != "" {
			access.BinfmtDir = dir
		}
		if release := os.Getenv("PROGRAM_VERSION"); release != "" {
			version, builtBy = release, os.Getenv("PROGRAM_BUILT_BY")
		}
		main()
	}})
}

// Whole commands, on a real Nix. Each script has an empty /nix of its own, its
// working directory is outside of any checkout, and $FLEET and $CLASSIC are
// copies of the examples.
func TestScripts(t *testing.T) {
	bins := map[string]string{}
	for _, version := range slices.Concat(testbench.NixVersions, testbench.NixForks) {
		bins[version] = testbench.NixPath(t, version)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			return setUp(env, bins["2.34"])
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"store":    useStore,
			"program":  useProgram,
			"nix-use":  func(ts *testscript.TestScript, _ bool, args []string) { useNix(ts, bins, args) },
			"replace":  replace,
			"entry":    entry,
			"build":    buildEntry,
			"glob":     runGlob,
			"exit":     exit,
			"nginx":    nginx,
			"attic":    startAttic,
			"cachix":   startCachix,
			"niks3":    startNiks3,
			"idtokens": startIDTokens,
			"sts":      startSTS,
			"answer":   answer,
			"hang":     hang,
			"daemon":   startDaemon,
			"machine":  startMachine,
			"s3":       startS3,
			"github":   startGitHub,
			"service":  startService,
			"scope":    useScope,
			"schema":   checkSchema,
		},
	})
}

func setUp(env *testscript.Env, nix string) error {
	t := env.T().(testing.TB)
	env.Values[testKey{}] = t
	env.Values[serviceKey{}] = new(actionstest.Running)
	env.Values[identityKey{}] = new(githubtest.IDTokens)
	testbench.PrivateNix(t)
	testbench.UseStore(t, filepath.Join(env.WorkDir, ".stores", "first"))
	for name, example := range map[string]string{"FLEET": "fleet", "CLASSIC": "classic"} {
		to := filepath.Join(env.WorkDir, ".examples", example)
		if err := os.CopyFS(to, os.DirFS(filepath.Join("..", "..", "examples", example))); err != nil {
			return err
		}
		env.Setenv(name, to)
	}
	home := filepath.Join(env.WorkDir, ".home")
	if err := os.MkdirAll(home, 0o750); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("USER", "somebody")
	env.Setenv("NO_COLOR", "1")
	env.Setenv("GOGC", "400") // half of what it takes to start this test as nix-matrix is to collect garbage
	env.Setenv("PATH", env.Getenv("PATH")+string(os.PathListSeparator)+os.Getenv("PATH"))
	usePath(env.Getenv, env.Setenv, nix)
	return nil
}

// usePath puts a directory at the front of PATH, behind that of the commands
// that are tested.
func usePath(getenv func(string) string, setenv func(string, string), dir string) {
	first, rest, _ := strings.Cut(getenv("PATH"), string(os.PathListSeparator))
	setenv("PATH", strings.Join([]string{first, dir, rest}, string(os.PathListSeparator)))
}

type (
	testKey    struct{}
	serviceKey struct{}
)

// store NAME makes /nix another store, an empty one if it is new.
func useStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: store NAME")
	}
	testbench.UseStore(ts.Value(testKey{}).(testing.TB), ts.MkAbs(".stores/"+args[0]))
}

// nix-use VERSION puts another version of Nix, or a stand-in for a fork, on PATH.
func useNix(ts *testscript.TestScript, bins map[string]string, args []string) {
	if len(args) != 1 || bins[args[0]] == "" {
		ts.Fatalf("usage: nix-use VERSION")
	}
	usePath(ts.Getenv, ts.Setenv, bins[args[0]])
}

// program PART puts a part of the testbench on PATH.
func useProgram(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: program PART")
	}
	usePath(ts.Getenv, ts.Setenv, testbench.Path(ts.Value(testKey{}).(testing.TB), args[0]+"/bin"))
}

// replace FILE OLD NEW changes a file, in which OLD must be.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	if !strings.Contains(string(data), args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(string(data), args[1], args[2], 1)), 0o600))
}

// nginx DIR [HTPASSWD] serves a directory and sets $NGINX to host and port.
func nginx(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: nginx DIR [HTPASSWD]")
	}
	auth := ""
	if len(args) == 2 {
		auth = args[1]
	}
	address := testbench.Nginx(ts.Value(testKey{}).(testing.TB), ts.MkAbs(args[0]), auth)
	ts.Setenv("NGINX", strings.TrimPrefix(address, "http://"))
}

// attic DIR [public] starts an Attic server that keeps the cache "fleet" in a directory,
// and sets $ATTIC to its address, $TOKEN to a token for it and $PULL_TOKEN to one that may
// only read it.
func startAttic(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: attic DIR [public]")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o750))
	server := attictest.Start(ts.Value(testKey{}).(testing.TB), attictest.Options{Cache: "fleet", Dir: dir, Public: len(args) == 2})
	ts.Setenv("ATTIC", server.URL)
	ts.Setenv("TOKEN", server.Token(true, true))
	ts.Setenv("PULL_TOKEN", server.Token(true, false))
}

// answer STATUS starts a server that answers all requests with a status and asks for no pause, and sets
// $ANSWER to host and port.
func answer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answer STATUS")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
	}))
	ts.Defer(server.Close)
	ts.Setenv("ANSWER", strings.TrimPrefix(server.URL, "http://"))
}

// cachix TOKEN [public|private|STATUS [DIR KEY]] starts Cachix with the cache my-fleet, which the token is for,
// without a program cachix. With a STATUS its API answers nothing else. The cache has what is in a directory, and its
// public key in a file.
func startCachix(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) == 3 || len(args) > 4 {
		ts.Fatalf("usage: cachix TOKEN [public|private|STATUS [DIR KEY]]")
	}
	with := testbench.Cachix{Name: "my-fleet", Token: args[0]}
	if len(args) > 1 {
		var err error
		if with.Public = args[1] == "public"; !with.Public && args[1] != "private" {
			with.Status, err = strconv.Atoi(args[1])
			ts.Check(err)
		}
	}
	if len(args) == 4 {
		with.Dir, with.Key = ts.MkAbs(args[2]), strings.TrimSpace(ts.ReadFile(args[3]))
	}
	for name, value := range with.Start(ts.Value(testKey{}).(testing.TB)) {
		ts.Setenv(name, value)
	}
}

// daemon [untrusted [CONF]] starts a multi-user Nix for the store that is /nix now, with
// further lines of its nix.conf in a file. $AS_USER begins a command as a user who can't
// write the store, in a shell's home; Nix trusts the user unless it says otherwise.
// $DAEMON is its process id.
func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 2 {
		ts.Fatalf("usage: daemon [untrusted [CONF]]")
	}
	config := ""
	if len(args) == 2 {
		config = ts.ReadFile(args[1])
	}
	binary, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	user := testbench.Daemon(ts.Value(testKey{}).(testing.TB), testbench.DaemonOptions{
		Trusted: len(args) == 0, Config: config, Reach: []string{ts.Getenv("WORK"), filepath.Join(binary, "nix-matrix")},
	})
	ts.Setenv("AS_USER", user.As)
	ts.Setenv("DAEMON", strconv.Itoa(user.PID))
}

// machine [trusted] starts another machine with a Nix of its own, which trusts the
// user who logs in only if it says so, and which pretends to run programs for
// riscv64-linux. $MACHINE is its store's address without the
// port, $PORT that, and $MACHINE_STORE the directory that is its /nix. The files key
// and known_hosts are for ssh.
func startMachine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: machine [trusted]")
	}
	t := ts.Value(testKey{}).(testing.TB)
	machine := testbench.SSHD(t, testbench.SSHDOptions{Trusted: len(args) == 1, Config: "extra-platforms = riscv64-linux\nmax-jobs = 4"})
	usePath(ts.Getenv, ts.Setenv, testbench.Path(t, "bin"))
	ts.Setenv("MACHINE", machine.Address())
	ts.Setenv("PORT", strconv.Itoa(machine.Port))
	ts.Setenv("MACHINE_STORE", machine.Store)
	for file, name := range map[string]string{"key": machine.Key, "known_hosts": machine.KnownHostsFile()} {
		data, err := os.ReadFile(name)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(file), data, 0o600))
	}
}

// s3 BUCKET starts an S3 server and sets $S3 to its address, and $S3_READ to one at which the same
// server permits only reads.
func startS3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: s3 BUCKET")
	}
	t := ts.Value(testKey{}).(testing.TB)
	ts.Setenv("S3", testbench.S3(t, args[0]))
	ts.Setenv("S3_READ", testbench.S3ReadOnly(t, ts.Getenv("S3")))
}

// github FILE starts GitHub's API with what the JSON file says, where times are days
// ago. The variables of a job name it. FILE.caches, FILE.comments and FILE.checks say at
// any time what is there, one a line.
func startGitHub(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: github FILE")
	}
	var says struct {
		Permissions map[string]string
		Hidden      bool
		Caches      []struct {
			Key, Ref      string
			Size          int64
			Created, Used float64
		}
		Comments []githubtest.Comment
		Commits  map[string]githubtest.Commit
		Branches map[string]string
		Pulls    []githubtest.Pull
		NoPulls  bool
		Heads    []string // commits that may have checks
		Writes   int
		Fail     []githubtest.Failure
	}
	file := ts.MkAbs(args[0])
	data, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(json.Unmarshal(data, &says))
	ago := func(days float64) time.Time { return time.Now().Add(-time.Duration(days * 24 * float64(time.Hour))) }
	options := githubtest.Options{
		Permissions: says.Permissions, Hidden: says.Hidden, Comments: says.Comments,
		Commits: says.Commits, Branches: says.Branches, Pulls: says.Pulls, NoPulls: says.NoPulls,
		Heads: says.Heads, Writes: says.Writes, RetryAfter: 3600,
	}
	options.PullsChanged = func(pulls []githubtest.Pull, tips map[string]githubtest.Commit) {
		data, err := json.Marshal(map[string]any{"pulls": pulls, "tips": tips})
		if err == nil {
			_ = os.WriteFile(file+".pulls", data, 0o600) // the script would see the old ones, and say so
		}
	}
	for _, c := range says.Caches {
		options.Caches = append(options.Caches, githubtest.Cache{Key: c.Key, Ref: c.Ref, Size: c.Size, Created: ago(c.Created), Used: ago(c.Used)})
	}
	options.Changed = func(caches []githubtest.Cache, comments []githubtest.Comment) {
		var b, d strings.Builder
		for _, c := range caches {
			fmt.Fprintln(&b, c.Key, c.Ref)
		}
		for _, c := range comments {
			fmt.Fprintf(&d, "%s %q\n", c.Author, c.Body)
		}
		// Were they not written, the script would see the old ones, and say so.
		_ = os.WriteFile(file+".caches", []byte(b.String()), 0o600)
		_ = os.WriteFile(file+".comments", []byte(d.String()), 0o600)
	}
	options.ChecksChanged = func(checks []githubtest.CheckRun) {
		var b strings.Builder
		for _, c := range checks {
			fmt.Fprintf(&b, "%d %s %s %s, %s: %q %s\n", c.ID, c.HeadSHA, c.Name, c.Conclusion, c.Title, c.Summary, c.DetailsURL)
		}
		_ = os.WriteFile(file+".checks", []byte(b.String()), 0o600)
	}
	options.Changed(options.Caches, options.Comments)
	server := githubtest.Start(ts.Value(testKey{}).(testing.TB), options)
	server.Fail(says.Fail...)
	for name, value := range server.Env() {
		ts.Setenv(name, value)
	}
}

// hang FILE listens on $HANG, makes the file when somebody connects, and never
// answers.
func hang(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hang FILE")
	}
	file := ts.MkAbs(args[0])
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
	ts.Setenv("HANG", listener.Addr().String())
	go func() {
		for {
			if _, err := listener.Accept(); err != nil {
				return
			}
			_ = os.WriteFile(file, nil, 0o600) // the script waits in vain, and says so
		}
	}()
}

// service starts the Actions cache, for a job of main.
func startService(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: service")
	}
	server := ts.Value(serviceKey{}).(*actionstest.Running)
	*server = *actionstest.Start(ts.Value(testKey{}).(testing.TB), actionstest.Options{OnDisk: true})
	for name, value := range server.Env(server.URL) {
		ts.Setenv(name, value)
	}
	useScope(ts, false, []string{actionstest.Main})
}

// scope REF [REF…] makes the job one of the first ref, whose cache it writes, which also
// reads those of the others.
func useScope(ts *testscript.TestScript, neg bool, refs []string) {
	server := ts.Value(serviceKey{}).(*actionstest.Running)
	if neg || len(refs) == 0 || server.Server == nil {
		ts.Fatalf("usage: service, then scope REF [REF…]")
	}
	scopes := []actionstest.Scope{{Scope: refs[0], Permission: actionstest.Read | actionstest.Write}}
	for _, ref := range refs[1:] {
		scopes = append(scopes, actionstest.Scope{Scope: ref, Permission: actionstest.Read})
	}
	ts.Setenv("ACTIONS_RUNTIME_TOKEN", server.TokenFor(scopes...))
	ts.Setenv("GITHUB_REF", refs[0])
}
