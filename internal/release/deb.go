package main

import (
	"bytes"
	"compress/gzip"
	"crypto/md5" //nolint:gosec // the format of Debian packages has it, to find accidents
	"encoding/hex"
	"fmt"
	"strings"
)

// deb returns the Debian package for a platform, whose processors Debian calls as Go does: see deb(5).
func (r *release) deb(p platform) (file, error) {
	manual, err := compressed(r.manual)
	if err != nil {
		return file{}, err
	}
	files := []file{
		{"usr/bin/nix-matrix", 0o755, r.binaries[p]},
		{"usr/share/bash-completion/completions/nix-matrix", 0o644, r.bash},
		{"usr/share/doc/nix-matrix/" + sumsName, 0o644, r.sums},
		{"usr/share/doc/nix-matrix/copyright", 0o644, r.license},
		{"usr/share/fish/vendor_completions.d/nix-matrix.fish", 0o644, r.fish},
		{"usr/share/man/man1/nix-matrix.1.gz", 0o644, manual},
		{"usr/share/zsh/vendor-completions/_nix-matrix", 0o644, r.zsh},
	}
	version := strings.Replace(strings.TrimPrefix(r.version, "v"), "-", "~", 1) // 1.2.3~rc.1 is before 1.2.3
	size, sums := 0, ""
	for _, f := range files {
		size += len(f.data)
		sum := md5.Sum(f.data) //nolint:gosec // see above
		sums += hex.EncodeToString(sum[:]) + "  " + f.name + "\n"
	}
	fields := fmt.Sprintf(`Package: nix-matrix
Version: %s
Architecture: %s
Maintainer: the nix-matrix authors <org@users.noreply.github.com>
Installed-Size: %d
Recommends: git
Suggests: nix-bin
Section: devel
Priority: optional
Homepage: https://github.com/org/nix-matrix
Description: turns one Nix repository into a GitHub Actions job matrix
 nix-matrix evaluates a flake or a default.nix once, and builds its hosts and
 packages in parallel. On one machine, "nix-matrix run" does all of it.
`, version, p.arch, (size+1023)/1024)
	control, err := r.tarball("./", []file{{"control", 0o644, []byte(fields)}, {"md5sums", 0o644, []byte(sums)}})
	if err != nil {
		return file{}, err
	}
	data, err := r.tarball("./", files)
	if err != nil {
		return file{}, err
	}
	members := []file{{"debian-binary", 0o644, []byte("2.0\n")}, {"control.tar.gz", 0o644, control}, {"data.tar.gz", 0o644, data}}
	return file{"nix-matrix_" + version + "_" + p.arch + ".deb", 0o644, r.ar(members)}, nil
}

// ar returns an archive in the format of ar(5).
func (r *release) ar(members []file) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, r.time.Unix(), 0, 0, 0o100000|m.mode, len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func compressed(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
