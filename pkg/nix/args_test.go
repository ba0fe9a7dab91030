package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/valid"
)

// Hostile strings that a caller may pass on from a flake, a builder or a server.
var hostile = []string{
	"--plugin-files", "-x", "-x.drv", "--", "", " ", "a b", "a\nb", "a\n--plugin-files", "a\x00b", "\xff", "\x1b[2J", "../../../etc/passwd", "/etc/passwd", "./x",
	aPath + " " + aPath, aPath + "\n" + aPath, aPath + "/../b.drv", aPath + "!out", aPath + ".drv^*", "${builtins.abort \"x\"}", `"`, "'", "!", "^", ";", "#x",
	"https://a https://b", "ssh://-oProxyCommand=x", "ssh-ng://u@-x/", strings.Repeat("a", 1<<20), "/nix/store/" + strings.Repeat("a", 1<<20),
}

const (
	aPath = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a"
	aDrv  = aPath + ".drv"
	aKey  = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
)

// A hostileCase is a function of this package with valid arguments, except where no foreign
// string can be passed.
type hostileCase struct {
	fn    any
	args  []any
	stdin bool // its arguments go to the program's stdin
	// together means that it runs programs at the same time, with different numbers of arguments.
	together bool
}

func hostileCases(n *Nix, old, lazy Version) map[string]hostileCase {
	away := n.WithStore("ssh-ng://host") // its files are out of reach, so that Nix is asked
	info := PathInfo{Path: aPath, NarHash: strings.Repeat("0", 64), NarSize: 1, Deriver: aDrv, References: []string{aPath}, Signatures: []string{aKey}, CA: "text:sha256:" + strings.Repeat("0", 52)}
	by := func(use func(*Daemon) error) error {
		d, err := n.Connect(context.Background())
		if err != nil {
			return err
		}
		return errors.Join(use(d), d.Close())
	}
	eval := func(n *Nix, e Evaluation) error {
		return n.Eval(context.Background(), e, func(string) bool { return false })
	}
	asks := func(n *Nix) error {
		_, err := n.Requisites(context.Background(), aPath)
		return err
	}
	return map[string]hostileCase{
		"Find":            {fn: Find, args: []any{Config{Conf: "a = b", Env: []string{"A=b"}, Fetch: []string{"C=d"}, SSH: "-o A=b", Nixpkgs: "path:/a"}}, together: true},
		"Set":             {fn: func(name string, values []string) error { return asks(n.WithOptions(Set(name, values...))) }, args: []any{"fallback", []string{"true"}}},
		"StorePath":       {fn: StorePath, args: []any{aPath}},
		"TrustPrograms":   {fn: func(dir string) error { return TrustPrograms("/nonexistent" + dir) }, args: []any{"/nix"}},
		"ReadDerivation":  {fn: ReadDerivation, args: []any{aDrv}},
		"Nix.WithStore":   {fn: func(store string) error { return asks(n.WithStore(store)) }, args: []any{"ssh-ng://host"}},
		"Nix.WithRoot":    {fn: func(root string) error { return asks(n.WithRoot(root)) }, args: []any{"/mnt"}},
		"Nix.WithOptions": {fn: func(o Option) error { return asks(n.WithOptions(o)) }, args: []any{Set("extra-substituters", "https://a")}},
		"Nix.Text":        {fn: n.Text, args: []any{"store"}},
		"Nix.Setting":     {fn: n.Setting, args: []any{"substituters"}},
		"Nix.Integer":     {fn: n.Integer, args: []any{"max-jobs"}},
		"Nix.WithPrograms": {fn: func(ctx context.Context, p Program) error {
			if p.DrvPath == "" { // only for programs that are not built
				p.DrvPath = " "
			}
			_, _, err := n.WithPrograms(p).FindProgram(ctx, "nothing-of-that-name")
			return err
		}, args: []any{Program{Name: "nothing-of-that-name", DrvPath: aDrv, Output: "out", OutPath: aPath}}},
		"Nix.ResolvePrograms": {fn: n.ResolvePrograms, args: []any{"path:/a", "cachix", []string{"x86_64-linux"}}},
		"Nix.ResolvePrograms with a hash": {fn: func(ctx context.Context, flake string) error {
			_, err := n.ResolvePrograms(ctx, flake+"?narHash=sha256-a", "cachix", "x86_64-linux")
			return err
		}, args: []any{"path:/a"}},
		"Nix.AddRoot":     {fn: n.AddRoot, args: []any{"/root/x", aPath}},
		"Nix.FindProgram": {fn: n.FindProgram, args: []any{"nothing-of-that-name"}},
		"Nix.Cachix":      {fn: n.Cachix, args: []any{"fleet", []string{aPath}}},
		"Nix.Eval": {fn: func(expr string, path []string, apply string) error {
			return eval(n, Evaluation{Expr: expr, Path: path, Apply: apply})
		}, args: []any{"1", []string{"a=/b"}, "x: x"}},
		"Nix.WithLock": {fn: func(input, ref, file string) error {
			if file == "" { // for the flake's own
				file = " "
			}
			return eval(n.WithLock(Lock{Overrides: []Override{{input, ref}}, File: file}), Evaluation{Flake: "path:/a", Apply: "x: x"})
		}, args: []any{"a/b", "path:/b", "/c"}},
		"Nix.ResolveLock": {fn: func(ctx context.Context, input, ref, flake string) error {
			_, err := n.WithLock(Lock{Overrides: []Override{{input, ref}}}).ResolveLock(ctx, []string{flake})
			return err
		}, args: []any{"a/b", "path:/b", "path:/a"}},
		"Nix.FlakeConfig": {fn: n.FlakeConfig, args: []any{"path:/a"}},
		"Nix.LocalInputs": {fn: func(ctx context.Context, ref string) error {
			_, err := n.LocalInputs(ctx, ref, "")
			return err
		}, args: []any{"path:/a"}},
		"Nix.Flake":         {fn: n.Flake, args: []any{"path:/a"}},
		"Nix.Realise":       {fn: n.Realise, args: []any{[]string{aDrv + "!out,dev"}}},
		"Nix.RealiseImpure": {fn: n.RealiseImpure, args: []any{aDrv}},
		"Nix.InputsToStore": {fn: func(name, value string) error {
			text, _ := json.Marshal(value)
			return (&Nix{env: n.env, Version: lazy}).InputsToStore(context.Background(), []Input{{Path: aPath, locked: fetched{name: text}}})
		}, args: []any{"type", "path"}},
		"Nix.UpdateLock":            {fn: n.UpdateLock, args: []any{"path:/a", []string{"nixpkgs"}}},
		"Nix.LockedInputs":          {fn: n.LockedInputs, args: []any{"path:/a"}},
		"Nix.LoadDB":                {fn: n.LoadDB, args: []any{[]PathInfo{info}}},
		"Nix.Requisites":            {fn: n.Requisites, args: []any{[]string{aPath}}},
		"Nix.Closure":               {fn: n.Closure, args: []any{[]string{aPath}}},
		"Nix.NAR":                   {fn: func(ctx context.Context, path string) error { return readAll(away.NAR(ctx, path)) }, args: []any{aPath}},
		"Nix.Walk":                  {fn: n.Walk, args: []any{aPath}},
		"Nix.Valid":                 {fn: n.Valid, args: []any{[]string{aPath}}},
		"Nix.Substitute":            {fn: func(ctx context.Context, paths ...string) error { return n.Substitute(ctx, nil, paths...) }, args: []any{[]string{aPath}}},
		"Nix.Outputs":               {fn: n.Outputs, args: []any{[]string{aDrv}}},
		"Nix.Inquire":               {fn: n.substitutable, args: []any{[]string{aPath}, []string{"https://a"}}},
		"Inquiry.Substitutable":     {fn: n.substitutable, args: []any{[]string{aPath}, []string{"https://a"}}},
		"Nix.TrustedPaths":          {fn: n.TrustedPaths, args: []any{[]string{aPath}, "https://a"}},
		"Nix.Forecast":              {fn: n.Forecast, args: []any{[]string{aDrv + "!out"}}},
		"Nix.SubstitutableClosures": {fn: n.SubstitutableClosures, args: []any{[]string{aPath}, []string{"https://a"}}},
		"Nix.Delivers":              {fn: n.Delivers, args: []any{"https://a", aPath}},
		"Nix.ToBuild":               {fn: n.ToBuild, args: []any{[]string{aDrv + "!out"}}},
		"Nix.AddTempRoots":          {fn: n.AddTempRoots, args: []any{[]string{aPath}}},
		"Nix.Export":                {fn: away.Export, args: []any{[]PathInfo{info}}},
		"Nix.Derivation":            {fn: n.Derivation, args: []any{aDrv}},
		"Nix.Derivations":           {fn: n.Derivations, args: []any{[]string{aDrv}}},
		"Nix.Has":                   {fn: n.Has, args: []any{aDrv}},
		"Nix.Copy":                  {fn: n.Copy, args: []any{"https://a", []string{aPath}}},
		"Nix.CopyDerivations":       {fn: n.CopyDerivations, args: []any{"https://a", []string{aDrv}}},
		"Nix.PublicKey":             {fn: n.PublicKey, args: []any{"a:secret"}, stdin: true},
		"Nix.FullInfo":              {fn: n.FullInfo, args: []any{[]string{aPath}}},
		"Nix.Built":                 {fn: n.Built, args: []any{[]string{aDrv}}},
		"Nix.BuiltHere":             {fn: n.BuiltHere, args: []any{[]string{aDrv}}},
		"Nix.ValidOutputs":          {fn: n.ValidOutputs, args: []any{[]string{aDrv}}},
		"Nix.Add":                   {fn: n.Add, args: []any{[]PathInfo{info}, noNAR}},
		"Daemon.AddTempRoots":       {fn: func(paths []string) error { return by(func(d *Daemon) error { return d.AddTempRoots(paths...) }) }, args: []any{[]string{aPath}}},
		"Daemon.AddMultiple":        {fn: func(i []PathInfo) error { return by(func(d *Daemon) error { return d.AddMultiple(i, noNAR) }) }, args: []any{[]PathInfo{info}}},
		"Daemon.AddStream": {fn: func(i PathInfo) error {
			return by(func(d *Daemon) error {
				return d.AddStream(func() (PathInfo, io.Reader, error) { nar, err := noNAR(i); return i, nar, err }, func(PathInfo) {})
			})
		}, args: []any{info}},
		"Daemon.AddSignatures": {fn: func(i []PathInfo) error { return by(func(d *Daemon) error { return d.AddSignatures(i) }) }, args: []any{[]PathInfo{info}}},
		"Daemon.OutputMap":     {fn: func(drv string) error { return by(func(d *Daemon) error { _, err := d.OutputMap(drv); return err }) }, args: []any{aDrv}},
		"Daemon.PathInfo":      {fn: func(path string) error { return by(func(d *Daemon) error { _, err := d.PathInfo(path); return err }) }, args: []any{aPath}},
		"Daemon.Valid": {fn: func(paths []string) error {
			return by(func(d *Daemon) error { _, err := d.Valid(paths...); return err })
		}, args: []any{[]string{aPath}}},
		"Nix.Eval of a flake": {fn: func(flake, apply string) error { return eval(n, Evaluation{Flake: flake, Apply: apply}) }, args: []any{"path:/a", "x: x"}},
		"Nix.Eval of an output": {fn: func(flake, attr string) error {
			return eval(&Nix{env: n.env, Version: old}, Evaluation{Flake: flake, Attr: attr, Apply: "x: x"})
		}, args: []any{"path:/a", "a%20b"}},
		"Nix.WithOptions substituters": {fn: func(s string) error { return asks(n.WithOptions(Set("substituters", s, "https://b"))) }, args: []any{"https://a"}},
		"Nix.WithOptions keys":         {fn: func(s string) error { return asks(n.WithOptions(Set("extra-trusted-public-keys", s))) }, args: []any{aKey}},
		"Nix.WithOptions platforms":    {fn: func(s string) error { return asks(n.WithOptions(Set("extra-platforms", s))) }, args: []any{"i686-linux"}},
		"Nix.NAR of this store":        {fn: func(ctx context.Context, path string) error { return readAll(n.NAR(ctx, path)) }, args: []any{aPath}},
		"Nix.Realise of a store":       {fn: away.Realise, args: []any{[]string{aDrv}}},
	}
}

// These take only checked strings, or start no program with them.
var withoutStrings = []string{
	"Environ", "OnlyOthers", "Named", "WentThroughAll", "NoAnswerError.Error", "PathError.Error", "PathError.Unwrap", "Programs", "Redact", "Message", "Error.Error", "Error.Unwrap", "ParseVersion", "Version.String", "Version.HasConfigShow", "Version.HasJSONFormat", "Version.HasOutputsSyntax", "Version.EvaluatesWholeFlakes",
	"Version.CopiesInputs", "PathInfo.Proven", "Daemon.Trust", "Nix.Distrust", "Nix.RefusesUnproven", "Error.Signaled", "Error.HTTPStatus", "Traffic.Add", "Daemon.Close", "Daemon.StopWith", "StepEnviron",
	"Nix.AccessTokens", "Nix.Evaluator", "Nix.Connect", "Nix.Reach", "Nix.AllValid", "Nix.Import", "Nix.ImportPipe", "Nix.Local", "Nix.Root", "Nix.FreeSpace", "Nix.Walks", "PathsOf", "HostSystem", "Nix.Remember", "IsBinaryCache", "ForeignProgram",
	"Nix.AcceptsFlakeConfig", "Inquiry.Close", "ParseFlakeReference", "ParseOverride", "Nix.Overrides", "Nix.LockFile", "InputError.Error", "Version.HasReferenceLockFile", "ParseLock", "LockedInputs.Changes", "Version.UpdatesInputs",
}

func versionOf(t *testing.T, said string) Version {
	t.Helper()
	v, err := ParseVersion(said)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func readAll(r io.ReadCloser, err error) error {
	if err == nil {
		_, err = io.ReadAll(r)
		_ = r.Close()
	}
	return err
}

func noNAR(PathInfo) (io.Reader, error) { return strings.NewReader("x"), nil }

// A string passed to any function of this package becomes the expected argument of a program,
// or the program is not run. A new function needs a case above.
func TestHostileArguments(t *testing.T) {
	dir := t.TempDir()
	argv, stdin := filepath.Join(dir, "argv"), filepath.Join(dir, "stdin")
	for _, name := range []string{"nix", "nix-store", "cachix"} {
		script(t, dir, name, `printf '%s\0' ${0##*/} "$@" $# >>`+argv+`; cat >>`+stdin+`; exit 1`)
	}
	// It sends a hello, and answers nothing else.
	script(t, dir, "nix-daemon", `printf '%s\0' ${0##*/} "$@" $# >>`+argv+`
printf 'oixd\0\0\0\0\042\001\0\0\0\0\0\0\0\0\0\0\0\0\0\0stla\0\0\0\0'; exec >&-; cat >>`+stdin)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	n := &Nix{env: Environ(), Version: versionOf(t, "nix (Nix) 2.34.8"), System: "x86_64-linux"}
	cases := hostileCases(n, versionOf(t, "nix (Nix) 2.8.0"), versionOf(t, "nix (Nix) 2.35.0"))
	for _, name := range exportedFuncs(t) {
		if _, ok := cases[name]; ok == slices.Contains(withoutStrings, name) {
			t.Errorf("%s has no case, or needs none", name)
		}
	}
	// run returns the argument lists of the programs that ran, and everything that they read.
	run := func(t *testing.T, c hostileCase, args []any) (lists [][]string, read string, err error) {
		for _, file := range []string{argv, stdin} {
			_ = os.WriteFile(file, nil, 0o600)
		}
		err = call(t, c.fn, args)
		data, _ := os.ReadFile(argv)
		words := strings.Split(string(data), "\x00")
		for words = words[:len(words)-1]; len(words) > 0; {
			end := slices.IndexFunc(words, func(word string) bool { return word == fmt.Sprint(slices.Index(words, word)-1) })
			lists, words = append(lists, words[:end]), words[end+1:]
		}
		if c.together {
			slices.SortFunc(lists, func(a, b []string) int { return len(a) - len(b) })
		}
		data, _ = os.ReadFile(stdin)
		return lists, string(data), err
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			usual, _, err := run(t, c, c.args)
			if err != nil && (strings.Contains(err.Error(), "invalid") || strings.Contains(err.Error(), "plain text")) {
				t.Fatalf("the usual arguments: %v", err)
			}
			for slot := 0; ; slot++ {
				for _, text := range hostile {
					args, ok := replaceSlot(c.args, slot, text)
					if !ok {
						return
					}
					lists, read, err := run(t, c, args)
					for i, list := range lists {
						if i >= len(usual) {
							t.Fatalf("with %.50q at %d it runs %.300q", text, slot, list)
						}
						checkList(t, usual[i], list, text)
					}
					if !c.stdin && len(text) > 1 && strings.Contains(read, text) {
						t.Errorf("%.50q is in a stdin or file: %.300q", text, read)
					}
					if err != nil && (len(err.Error()) > 4096 || strings.ContainsAny(err.Error(), "\x00\x1b\r")) {
						t.Errorf("%.50q has an error of %d bytes: %.300q", text, len(err.Error()), err)
					}
				}
			}
		})
	}
}

// checkList compares an argument list with the usual one: only the word with the hostile string
// may differ, in its place and not as an option.
func checkList(t *testing.T, usual, list []string, text string) {
	t.Helper()
	if len(list) != len(usual) {
		t.Fatalf("with %.50q the arguments are %.1000q, not as %.1000q", text, list, usual)
	}
	for i, word := range list {
		if plain, err := url.PathUnescape(word); err == nil && strings.HasPrefix(word, "local?root=") {
			word = plain
		}
		if word != usual[i] && !strings.HasPrefix(usual[i], os.TempDir()) && (strings.HasPrefix(word, "-") || !strings.Contains(word, text) && word[0] != '/' && word[0] != '(') {
			t.Errorf("with %.50q the arguments are %.1000q, not as %.1000q", text, list, usual)
		}
	}
}

// call calls a function with a context and the given arguments, and returns its error.
func call(t *testing.T, fn any, args []any) error {
	f := reflect.ValueOf(fn)
	var in []reflect.Value
	for i := range f.Type().NumIn() {
		of := f.Type().In(i)
		switch {
		case len(args) > 0 && reflect.TypeOf(args[0]) == of:
			in, args = append(in, reflect.ValueOf(args[0])), args[1:]
		case of.Kind() == reflect.Func:
			in = append(in, reflect.MakeFunc(of, func([]reflect.Value) (out []reflect.Value) {
				for o := range of.NumOut() {
					out = append(out, reflect.Zero(of.Out(o)))
				}
				return out
			}))
		case of == reflect.TypeFor[context.Context]():
			in = append(in, reflect.ValueOf(t.Context()))
		case of == reflect.TypeFor[io.Writer]():
			in = append(in, reflect.ValueOf(io.Discard))
		default:
			in = append(in, reflect.Zero(of))
		}
	}
	if len(args) > 0 {
		t.Fatalf("%v are no arguments of %s", args, f.Type())
	}
	invoke := f.Call
	if f.Type().IsVariadic() {
		invoke = f.CallSlice
	}
	for _, out := range invoke(in) {
		if err, ok := out.Interface().(error); ok {
			return err
		}
	}
	return nil
}

// replaceSlot returns arguments with one string, given by its number, replaced.
func replaceSlot(args []any, slot int, text string) ([]any, bool) {
	var visit func(v reflect.Value) reflect.Value
	visit = func(v reflect.Value) reflect.Value {
		switch v.Kind() {
		case reflect.String:
			if slot--; slot == -1 {
				return reflect.ValueOf(text).Convert(v.Type())
			}
			return v
		case reflect.Slice:
			out := reflect.MakeSlice(v.Type(), 0, v.Len())
			for i := range v.Len() {
				out = reflect.Append(out, visit(v.Index(i)))
			}
			return out
		case reflect.Struct:
			out := reflect.New(v.Type()).Elem()
			for i := range v.NumField() {
				out.Field(i).Set(visit(v.Field(i)))
			}
			return out
		}
		return v
	}
	replaced := make([]any, len(args))
	for i, arg := range args {
		replaced[i] = visit(reflect.ValueOf(arg)).Interface()
	}
	return replaced, slot < 0
}

// exportedFuncs returns the exported functions and methods. It fails if one of them makes an
// argument list by itself.
func exportedFuncs(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			receiver := ""
			if f.Recv != nil {
				of := f.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				receiver = of.(*ast.Ident).Name + "."
			}
			if f.Name.IsExported() && (receiver == "" || ast.IsExported(receiver)) {
				names = append(names, receiver+f.Name.Name)
			}
			ast.Inspect(f, func(node ast.Node) bool {
				switch node := node.(type) {
				case *ast.SelectorExpr:
					if of, ok := node.X.(*ast.Ident); ok && of.Name == "exec" && strings.HasPrefix(node.Sel.Name, "Command") && f.Name.Name != "program" {
						t.Errorf("%s: %s makes a command by itself", name, f.Name.Name)
					}
				case *ast.CallExpr:
					if of, ok := node.Fun.(*ast.Ident); ok && of.Name == "literal" {
						t.Errorf("%s: %s makes a literal of a string", name, f.Name.Name)
					}
				case *ast.CompositeLit:
					if of, ok := node.Type.(*ast.Ident); ok && of.Name == "arguments" && f.Name.Name != "command" {
						t.Errorf("%s: %s makes arguments by itself", name, f.Name.Name)
					}
				}
				return true
			})
		}
	}
	return names
}

// The paths in a derivation are foreign strings too.
func TestHostileDerivation(t *testing.T) {
	text := func(output, input, of string) []byte {
		return fmt.Appendf(nil, `Derive([("out",%q,"","")],[(%q,[%q])],[],"x86_64-linux","/bin/sh",[],[("name","x")])`, output, input, of)
	}
	if _, err := ReadDerivation("x", text(aPath, aDrv, "out")); err != nil {
		t.Fatal(err)
	}
	for _, s := range hostile {
		for _, data := range [][]byte{text(s, aDrv, "out"), text(aPath, s, "out"), text(aPath, aDrv, s)} {
			if s == "" && string(data) == string(text("", aDrv, "out")) {
				continue // named by its content
			}
			if drv, err := ReadDerivation("x", data); err == nil {
				t.Errorf("%.50q is read: %.300q", s, fmt.Sprint(drv))
			} else if len(err.Error()) > 4096 {
				t.Errorf("%.50q has an error of %d bytes", s, len(err.Error()))
			}
		}
	}
}

func TestQuote(t *testing.T) {
	if got := valid.Quote(strings.Repeat("\x00", 1<<20)); len(got) > 1000 {
		t.Errorf("%d bytes", len(got))
	}
}
