package nix

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// A PathInfo is what the store knows of a valid path.
type PathInfo struct {
	Path       string
	NarHash    string // sha256; base16, but from Closure
	NarSize    int64  // bytes
	Deriver    string // store path or empty
	References []string
	Signatures []string // NAME:BASE64
	CA         string   // content address or empty
	Ultimate   bool     // it was built here; known to FullInfo only
}

// StorePath gives the store path that an argument is, lies in, or leads to, as ./result
// does.
func StorePath(arg string) (string, error) {
	if storepath.Valid(arg) {
		return arg, nil
	}
	path, err := filepath.EvalSymlinks(arg)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		var at *fs.PathError // whose path may be as odd as arg
		if errors.As(err, &at) {
			err = at.Err
		}
		return "", fmt.Errorf("%s is no store path, nor does it lead to one: %w", valid.Quote(arg), err)
	}
	const dir = "/nix/store/"
	name, inside := strings.CutPrefix(path, dir)
	name, _, _ = strings.Cut(name, "/")
	if !inside || !storepath.Valid(dir+name) {
		return "", fmt.Errorf("%s is no store path, nor does it lead to one: it is %s", valid.Quote(arg), valid.Quote(path))
	}
	return dir + name, nil
}

// Requisites gives the closure of the paths, references before what refers to
// them. Of a derivation, that is the derivations and sources that it needs.
func (n *Nix) Requisites(ctx context.Context, paths ...string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--query", "--requisites").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask for the closure: %w", err)
		}
		for _, path := range lines(out) {
			if !seen[path] {
				seen[path] = true
				all = append(all, path)
			}
		}
	}
	return all, nil
}

// Closure gives what the store knows of the closure of the paths, signatures and
// content addresses too. The hashes are as `nix path-info` writes them.
func (n *Nix) Closure(ctx context.Context, paths ...string) (map[string]PathInfo, error) {
	closure := make(map[string]PathInfo, len(paths))
	for _, piece := range chunks(paths) {
		with := args("path-info", "--recursive", "--json")
		if n.HasJSONFormat() {
			with.add("--json-format", "1")
		}
		out, err := n.output(ctx, "nix", with.operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask the store for the closure: %w", err)
		}
		infos, err := parsePathInfo(out)
		if err != nil {
			return nil, fmt.Errorf("read nix path-info: %w", err)
		}
		maps.Copy(closure, infos)
	}
	return closure, nil
}

// parsePathInfo reads what `nix path-info --json` writes: an object by path, in
// versions before 2.19 an array.
func parsePathInfo(out []byte) (map[string]PathInfo, error) {
	type info struct {
		Path, NarHash, Deriver, CA string
		NarSize                    int64
		References, Signatures     []string
	}
	byPath := map[string]*info{}
	if err := json.Unmarshal(out, &byPath); err != nil {
		var list []*info
		if json.Unmarshal(out, &list) != nil {
			return nil, err
		}
		for _, i := range list {
			byPath[i.Path] = i
		}
	}
	infos := make(map[string]PathInfo, len(byPath))
	for path, i := range byPath {
		if i == nil { // not valid
			continue
		}
		infos[path] = PathInfo{
			Path: path, NarHash: i.NarHash, NarSize: i.NarSize, Deriver: i.Deriver,
			References: i.References, Signatures: i.Signatures, CA: i.CA,
		}
	}
	return infos, nil
}

// NAR opens the NAR of a path. It must be closed.
func (n *Nix) NAR(ctx context.Context, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(n.dump(ctx, w, path)) }()
	return &narReader{PipeReader: r, cancel: cancel}, nil
}

// dump writes a NAR. A program for each of many paths costs more than all the
// rest of pushing them; but only Nix itself knows how it names files on macOS.
func (n *Nix) dump(ctx context.Context, w io.Writer, path string) error {
	if runtime.GOOS != "darwin" && !n.remote {
		file, err := n.realFile(path)
		if err != nil {
			return err
		}
		return nar.Dump(w, file)
	}
	cmd := n.command(ctx, "nix", args("store", "dump-path").operands(valid.StorePath, path))
	cmd.Stdout = w
	cmd.Stderr = io.Discard
	return n.run(cmd)
}

type narReader struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close ends the writing too.
func (r *narReader) Close() error {
	r.cancel()
	return r.PipeReader.Close()
}

// Valid says which of the paths are valid in the store.
func (n *Nix) Valid(ctx context.Context, paths ...string) (map[string]bool, error) {
	there := make(map[string]bool, len(paths))
	for _, path := range paths {
		there[path] = true
	}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--check-validity", "--print-invalid").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask the store for valid paths: %w", err)
		}
		for _, path := range lines(out) {
			delete(there, path)
		}
	}
	return there, nil
}

// Substitute fetches paths, as far as substituters have them: an error says that they
// have not all.
func (n *Nix) Substitute(ctx context.Context, paths ...string) error {
	var errs []error
	for _, piece := range chunks(paths) {
		cmd := n.abroad(ctx, "nix-store", args("--realise", "--keep-going").operands(valid.StorePath, piece...))
		cmd.Stdout = io.Discard
		if err := n.run(cmd); err != nil {
			errs = append(errs, fmt.Errorf("fetch from substituters: %w", err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Outputs gives the outputs of derivations by name. The path of one that is known
// only after the build is empty until then.
func (n *Nix) Outputs(ctx context.Context, drvs ...string) (map[string]map[string]string, error) {
	outputs := make(map[string]map[string]string, len(drvs))
	if len(drvs) == 0 {
		return outputs, nil
	}
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, drv := range drvs {
		if outputs[drv] == nil {
			if outputs[drv], err = d.OutputMap(drv); err != nil {
				return nil, d.explain(errors.Join(err, d.Close()))
			}
		}
	}
	return outputs, d.Close()
}

// Forecast gives how many bytes the store will grow by what is fetched for
// outputs, given as for Realise. What is built comes on top.
func (n *Nix) Forecast(ctx context.Context, outputs []string) (int64, error) {
	cmd := n.abroad(ctx, "nix-store", args("--realise", "--dry-run").operands(valid.Realisable, outputs...))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := n.run(cmd); err != nil {
		return 0, fmt.Errorf("ask what will be fetched: %w", err)
	}
	return parseUnpacked(said.String()), nil
}

var unpackedPattern = regexp.MustCompile(`([0-9.]+) ([KMGT])iB unpacked\)`)

// parseUnpacked gives the bytes that a dry run says will be unpacked.
func parseUnpacked(said string) int64 {
	m := unpackedPattern.FindStringSubmatch(text.Plain(said))
	if m == nil {
		return 0
	}
	size, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0
	}
	return int64(size * math.Pow(1024, float64(strings.Index("KMGT", m[2])+1)))
}

// ToBuild returns the derivations that Nix would build for outputs, which are given as
// for Realise.
func (n *Nix) ToBuild(ctx context.Context, outputs []string) ([]string, error) {
	built := map[string]bool{}
	for _, piece := range chunks(outputs) {
		var said bytes.Buffer
		cmd := n.abroad(ctx, "nix-store", args("--realise", "--dry-run").operands(valid.Realisable, piece...))
		cmd.Stdout, cmd.Stderr = io.Discard, &said
		if err := n.run(cmd); err != nil {
			return nil, fmt.Errorf("ask what is to be built: %w", err)
		}
		maps.Copy(built, parseDryRun(said.String(), " will be built:"))
	}
	return slices.Sorted(maps.Keys(built)), nil
}

// parseDryRun returns the paths that a dry run lists under a heading, such as
// " will be fetched ".
func parseDryRun(said, heading string) map[string]bool {
	listed := map[string]bool{}
	within := false
	for line := range strings.Lines(text.Plain(said)) {
		line = strings.TrimRight(line, "\n")
		path, indented := strings.CutPrefix(line, "  /nix/store/")
		switch {
		case !indented:
			within = strings.Contains(line, heading)
		case within:
			listed["/nix/store/"+path] = true
		}
	}
	return listed
}

// removeAll removes a directory with a store in it, whose directories may be
// read-only.
func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory of ours
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

// Hold keeps the garbage collector away from paths, valid or not yet, until the
// connection that it gives is closed or the context ends.
func (n *Nix) Hold(ctx context.Context, paths ...string) (io.Closer, error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.AddTempRoots(paths...); err != nil {
		return nil, err
	}
	return d, nil
}

// AddRoot makes the symlink file, which leads to a valid path and keeps the garbage collector
// away from it. A symlink of that name is replaced.
func (n *Nix) AddRoot(ctx context.Context, file, path string) error {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := cmp.Or(fileName(absolute), valid.StorePath(path)); err != nil {
		return fmt.Errorf("cannot link: %w", err)
	}
	if _, err := n.output(ctx, "nix-store", args("--realise", "--add-root").checked(fileName, absolute).operands(valid.StorePath, path)); err != nil {
		return fmt.Errorf("cannot link %s to %s: %w", file, path, err)
	}
	return nil
}

// A PathError says what is wrong with one path, where others may be fine.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string { return e.Path + ": " + e.Err.Error() }

func (e *PathError) Unwrap() error { return e.Err }

// Export writes the export stream of valid paths, references before what refers to them.
// What is in the store is written as it is: whoever reads it compares it with the hash. Of
// a path that can't be read, the error is a *PathError.
func (n *Nix) Export(ctx context.Context, dst io.Writer, infos []PathInfo) error {
	if runtime.GOOS == "darwin" || n.remote {
		return n.export(ctx, dst, infos)
	}
	for _, info := range infos {
		if err := info.check(); err != nil {
			return fmt.Errorf("export store paths: %w", err)
		}
		err := nar.WriteRecord(dst, info.Path, info.References, info.Deriver, func(w io.Writer) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			to := &lastError{w: w}
			if err := nar.Dump(to, filepath.Join(n.realDir(), filepath.Base(info.Path))); err != nil && to.err == nil {
				return &PathError{info.Path, err}
			}
			return to.err
		})
		if err != nil {
			return fmt.Errorf("export store paths: %w", err)
		}
	}
	return nar.WriteEnd(dst)
}

// lastError keeps the error of writing.
type lastError struct {
	w   io.Writer
	err error
}

func (l *lastError) Write(p []byte) (n int, err error) {
	n, l.err = l.w.Write(p)
	return n, l.err
}

// export has Nix do so, which alone knows how it names files on macOS.
func (n *Nix) export(ctx context.Context, dst io.Writer, infos []PathInfo) error {
	paths := make([]string, len(infos))
	for i, info := range infos {
		paths[i] = info.Path
	}
	for _, piece := range chunks(paths) {
		out := &openEnd{w: dst}
		cmd := n.command(ctx, "nix-store", args("--export").operands(valid.StorePath, piece...))
		cmd.Stdout = out
		if err := n.run(cmd); err != nil {
			var failed *Error
			if errors.As(err, &failed) {
				if named := Named(failed.Message); len(named) > 0 && slices.Contains(piece, named[0]) {
					err = &PathError{named[0], err}
				}
			}
			return fmt.Errorf("export store paths: %w", err)
		}
		if out.end != [8]byte{} || out.have != len(out.end) {
			return fmt.Errorf("export store paths: the stream of nix-store --export has no end")
		}
	}
	return nar.WriteEnd(dst)
}

// Import adds the paths of an export stream, checking neither signatures nor what the
// references are. It holds a NAR at a time in memory, as Nix does.
func (n *Nix) Import(ctx context.Context, src io.Reader) error {
	cmd := n.command(ctx, "nix-store", args("--import"))
	cmd.Stdin, cmd.Stdout = src, io.Discard
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("import store paths: %w", err)
	}
	return nil
}

// openEnd holds the last eight bytes back, so that streams can be joined.
type openEnd struct {
	w    io.Writer
	end  [8]byte
	have int
}

func (o *openEnd) Write(p []byte) (int, error) {
	all := append(o.end[:o.have:o.have], p...)
	keep := min(len(all), len(o.end))
	if _, err := o.w.Write(all[:len(all)-keep]); err != nil {
		return 0, err
	}
	o.have = copy(o.end[:], all[len(all)-keep:])
	return len(p), nil
}

// Derivation reads a .drv file of the store.
func (n *Nix) Derivation(path string) (*derivation.Derivation, error) {
	file, err := n.realFile(path)
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	return parseDerivation(path, data)
}

// Has says whether the files of all outputs of a derivation are there: after the
// end of its build, whether that went well. It asks no program.
func (n *Nix) Has(drv string) bool {
	d, err := n.Derivation(drv)
	if err != nil {
		return false
	}
	for _, output := range d.Outputs {
		if _, err := os.Lstat(output.Path); err != nil && output.Path != "" { // else it is named by its content
			return false
		}
	}
	return true
}

// Copy sends the closures of the paths to another store, and says what of them it
// lacked. How large that is, it knows of binary caches alone. With DRV!* among the paths,
// the other store learns also which derivation has these outputs.
func (n *Nix) Copy(ctx context.Context, destination string, paths []string) (Traffic, error) {
	if err := valid.Address(destination); err != nil {
		return Traffic{}, fmt.Errorf("copy: %w", err)
	}
	log := &copyLog{sizes: map[string]int64{}, rest: tail{limit: 16 << 10}}
	installables := make([]string, len(paths))
	for i, path := range paths {
		installables[i] = n.installable(path)
	}
	for _, piece := range chunks(installables) {
		with := args().settings(asked...).add("copy", "--verbose", "--to").checked(valid.Address, destination)
		if strings.HasPrefix(destination, "ssh") {
			with.add("--substitute-on-destination") // what others can send, we need not
		}
		cmd := n.abroad(ctx, "nix", with.operands(copied, piece...))
		cmd.WaitDelay = copyGrace
		cmd.Stderr = log // and nowhere else: it may quote the address
		err := cmd.Run()
		if err = failure(cmd, err, log.rest.String()+string(log.partly)); err != nil {
			maps.DeleteFunc(log.sizes, func(_ string, size int64) bool { return size == 0 }) // which may not have arrived
			name, _, _ := strings.Cut(Redact(destination), "?")
			return log.traffic(), fmt.Errorf("copy to %s: %w", name, redactErr(err, destination))
		}
	}
	return log.traffic(), nil
}

// A copyLog reads what nix copy says: which paths it sends, and for a binary cache
// also when one was compressed and is there.
type copyLog struct {
	sizes  map[string]int64 // bytes of NARs by path, 0 where that is not known
	partly []byte           // a line that has not ended yet
	rest   tail             // what else it says, of which the last can be an error
}

var copyPattern = regexp.MustCompile(`^copying path '([^']+)' (?:to '|from '.*' to '|\((\d+) bytes, )`)

func (l *copyLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		l.partly = append(l.partly, line...)
		if !ended && len(l.partly) < l.rest.limit {
			break
		}
		if m := copyPattern.FindSubmatch(l.partly); m != nil {
			size, _ := strconv.ParseInt(string(m[2]), 10, 64) // 0 is not known
			l.sizes[string(m[1])] = max(size, l.sizes[string(m[1])])
		} else if !bytes.HasSuffix(l.partly, []byte("...")) { // as lines end that say what it does
			_, _ = l.rest.Write(append(l.partly, '\n'))
		}
		l.partly, rest = l.partly[:0], after
	}
	return len(p), nil
}

func (l *copyLog) traffic() Traffic {
	var t Traffic
	for _, size := range l.sizes {
		t.Add(Traffic{1, size})
	}
	return t
}

// CopyDerivations sends the closures of derivations to another store. They have
// content addresses, so a store that does not trust us takes them.
func (n *Nix) CopyDerivations(ctx context.Context, destination string, drvs []string) error {
	if err := valid.Address(destination); err != nil {
		return fmt.Errorf("copy derivations: %w", err)
	}
	for _, piece := range chunks(drvs) {
		cmd := n.abroad(ctx, "nix", args("copy", "--derivation", "--to").checked(valid.Address, destination).operands(valid.StorePath, piece...))
		cmd.Stderr = io.Discard
		if err := n.run(cmd); err != nil {
			return fmt.Errorf("copy derivations to %s: %w", Redact(destination), redactErr(err, destination))
		}
	}
	return nil
}

// PublicKey gives the public half of a secret key that signs store paths, which
// nothing but the program's stdin gets to see.
func (n *Nix) PublicKey(ctx context.Context, secretKey string) (string, error) {
	cmd := n.command(ctx, "nix", args("key", "convert-secret-to-public"))
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.TrimSpace(secretKey)), &out, io.Discard
	if err := n.run(cmd); err != nil {
		return "", errors.New("the signing key is none: it should be as nix-store --generate-binary-cache-key makes it, NAME:BASE64")
	}
	return strings.TrimSpace(out.String()), nil
}
