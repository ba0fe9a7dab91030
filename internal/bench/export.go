package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nar"

	stream "github.com/org/nix-matrix/internal/nar"
)

// export writes what nix-store --import reads.
func export(w io.Writer, paths []*storePath) error {
	for _, p := range paths {
		refs := make([]string, len(p.refs))
		for i, q := range p.refs {
			refs[i] = q.path
		}
		slices.Sort(refs)
		if err := stream.WriteRecord(w, p.path, refs, "", p.nar); err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
	}
	return stream.WriteEnd(w)
}

// nar writes the path's NAR: a directory, or a file without a name.
func (p *storePath) nar(w io.Writer) error {
	n, err := nar.NewWriter(w)
	if err != nil {
		return err
	}
	if p.files[0].name != "" {
		if err := n.WriteHeader(&nar.Header{Path: "/", Type: nar.TypeDirectory}); err != nil {
			return err
		}
	}
	made := map[string]bool{"/": true}
	for _, f := range p.files {
		name := "/" + f.name
		for i := 1; i < len(name); i++ {
			if dir := name[:i]; name[i] == '/' && !made[dir] {
				made[dir] = true
				if err := n.WriteHeader(&nar.Header{Path: dir, Type: nar.TypeDirectory}); err != nil {
					return err
				}
			}
		}
		if err := f.nar(n, name); err != nil {
			return err
		}
	}
	return n.Close()
}

func (f *file) nar(n *nar.Writer, name string) error {
	if f.link != "" {
		return n.WriteHeader(&nar.Header{Path: name, Type: nar.TypeSymlink, LinkTarget: f.link})
	}
	body := io.Reader(strings.NewReader(f.text))
	size := int64(len(f.text))
	if f.source != "" {
		source, err := os.Open(f.source)
		if err != nil {
			return err
		}
		defer source.Close()
		body, size = source, f.size
	}
	if err := n.WriteHeader(&nar.Header{Path: name, Type: nar.TypeRegular, Size: size, Executable: f.executable}); err != nil {
		return err
	}
	_, err := io.CopyN(n, body, size)
	return err
}
