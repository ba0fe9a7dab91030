package main

import (
	"fmt"
	"io"
	"os"
	"slices"

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
		if err := p.write(n, &f, name); err != nil {
			return err
		}
	}
	return n.Close()
}

func (p *storePath) write(n *nar.Writer, f *file, name string) error {
	if f.link != "" {
		return n.WriteHeader(&nar.Header{Path: name, Type: nar.TypeSymlink, LinkTarget: f.link})
	}
	if f.source == "" {
		if err := n.WriteHeader(&nar.Header{Path: name, Type: nar.TypeRegular, Size: int64(len(f.text)), Executable: f.executable}); err != nil {
			return err
		}
		_, err := io.WriteString(n, f.text)
		return err
	}
	source, err := os.Open(f.source)
	if err != nil {
		return err
	}
	defer source.Close()
	head := make([]byte, 4)
	_, _ = source.ReadAt(head, 0) // a shorter one is no program
	content := p.content(f, source, head)
	if err := n.WriteHeader(&nar.Header{Path: name, Type: nar.TypeRegular, Size: content.length(), Executable: f.executable}); err != nil {
		return err
	}
	return content.writeTo(n)
}
