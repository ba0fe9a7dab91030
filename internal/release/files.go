package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A platform is a system and a processor that releases are built for, by Go's names.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "-" + p.arch }

// binary returns the name of the binary.
func (p platform) binary() string { return "nix-matrix-" + p.String() }

// platforms are those of scripts/build-dist.
var platforms = []platform{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}

// A file is part of a release or of an archive.
type file struct {
	name string // with slashes; in an archive, below its root
	mode fs.FileMode
	data []byte
}

// A release has everything that its files are made of.
type release struct {
	version  string
	time     time.Time
	binaries map[platform][]byte
	sums     []byte // SHA256SUMS of the binaries
	license  []byte
	changes  []byte
	manual   []byte
	bash     []byte
	zsh      []byte
	fish     []byte
}

// read reads the binaries in a directory, has that for this machine print the manual and the completions, and reads
// the documents of the repository.
func (r *release) read(ctx context.Context, dir string) error {
	r.binaries = map[platform][]byte{}
	for _, p := range platforms {
		data, err := os.ReadFile(filepath.Join(dir, p.binary()))
		if err != nil {
			return err
		}
		r.binaries[p] = data
	}
	for name, to := range map[string]*[]byte{
		filepath.Join(dir, sumsName): &r.sums, "LICENSE": &r.license, "CHANGELOG.md": &r.changes,
	} {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		*to = data
	}
	if listed := checksums(r.raw()); !bytes.Equal(listed, r.sums) {
		return fmt.Errorf("%s in %s does not have the checksums of the binaries there:\n%s", sumsName, dir, r.sums)
	}
	here := platform{runtime.GOOS, runtime.GOARCH}
	if r.binaries[here] == nil {
		return fmt.Errorf("no release is built for this machine, %v, so no program here prints the manual page", here)
	}
	program, err := filepath.Abs(filepath.Join(dir, here.binary()))
	if err != nil {
		return err
	}
	for command, to := range map[string]*[]byte{"manual": &r.manual, "completion bash": &r.bash, "completion zsh": &r.zsh, "completion fish": &r.fish} {
		printed, err := exec.CommandContext(ctx, program, strings.Fields(command)...).Output()
		if err == nil && len(printed) == 0 {
			err = errors.New("it printed nothing")
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", program, command, err)
		}
		*to = printed
	}
	return nil
}

// sumsName is the name of a list of checksums, in the format of sha256sum.
const sumsName = "SHA256SUMS"

// raw returns the binaries as files of the release.
func (r *release) raw() []file {
	var files []file
	for _, p := range platforms {
		files = append(files, file{p.binary(), 0o755, r.binaries[p]})
	}
	return files
}

// files returns the files of the release.
func (r *release) files() ([]file, error) {
	files := r.raw()
	for _, p := range platforms {
		archive, err := r.archive(p)
		if err != nil {
			return nil, err
		}
		files = append(files, archive)
		if p.os == "linux" {
			deb, err := r.deb(p)
			if err != nil {
				return nil, err
			}
			files = append(files, deb)
		}
	}
	sbom, err := r.sbom()
	if err != nil {
		return nil, err
	}
	files = append(files, sbom)
	return append(files, file{sumsName, 0o644, checksums(files)}), nil
}

// checksums returns the list of checksums of files.
func checksums(files []file) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", sha256Hex(f.data), f.name)
	}
	return b.Bytes()
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// archive returns the archive for a platform. It unpacks into a prefix such as ~/.local, below one directory.
func (r *release) archive(p platform) (file, error) {
	name := "nix-matrix-" + r.version + "-" + p.String()
	files := []file{
		{"bin/nix-matrix", 0o755, r.binaries[p]},
		{"share/bash-completion/completions/nix-matrix", 0o644, r.bash},
		{"share/doc/nix-matrix/CHANGELOG.md", 0o644, r.changes},
		{"share/doc/nix-matrix/LICENSE", 0o644, r.license},
		{"share/doc/nix-matrix/" + sumsName, 0o644, r.sums},
		{"share/fish/vendor_completions.d/nix-matrix.fish", 0o644, r.fish},
		{"share/man/man1/nix-matrix.1", 0o644, r.manual},
		{"share/zsh/site-functions/_nix-matrix", 0o644, r.zsh},
	}
	data, err := r.tarball(name+"/", files)
	return file{name + ".tar.gz", 0o644, data}, err
}

// tarball returns a compressed tar archive of files below a directory, with all directories between.
func (r *release) tarball(root string, files []file) ([]byte, error) {
	var b bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(compressed)
	header := func(name string, kind byte, mode fs.FileMode, size int) error {
		return w.WriteHeader(&tar.Header{
			Typeflag: kind, Name: name, Mode: int64(mode.Perm()), Size: int64(size),
			ModTime: r.time, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
		})
	}
	made := map[string]bool{}
	var directory func(name string) error
	directory = func(name string) error {
		if made[name] {
			return nil
		}
		made[name] = true
		if parent, _ := path.Split(strings.TrimSuffix(name, "/")); parent != "" {
			if err := directory(parent); err != nil {
				return err
			}
		}
		return header(name, tar.TypeDir, 0o755, 0)
	}
	for _, f := range files {
		name := root + f.name
		parent, _ := path.Split(name)
		if err := directory(parent); err != nil {
			return nil, err
		}
		if err := header(name, tar.TypeReg, f.mode, len(f.data)); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
