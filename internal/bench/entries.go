package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	entryHosts  = 4
	entryCommon = 32 // outputs that all hosts take
	entryOwn    = 8  // that only one does, so 80 % is in common
	entryBytes  = 1_000_000
)

// hosts is a flake with hosts, whose derivations copy files.
const hosts = `{
  outputs = _:
    let
      drv = name: text: derivation { inherit name; system = "x86_64-linux"; PATH = "/usr/bin:/bin"; builder = "/bin/sh"; args = [ "-c" text ]; };
      file = n: drv "file-${toString n}" "cp %[1]s/${toString n} $out";
      own = host: builtins.genList (n: file (%[2]d + host * %[3]d + n)) %[3]d;
      common = builtins.genList file %[2]d;
    in
    {
      nixosConfigurations = builtins.listToAttrs (builtins.genList
        (host: {
          name = "host${toString host}";
          value.config.system.build.toplevel = drv "nixos-system-${toString host}" "echo ${toString (common ++ own host)} >$out";
        })
        %[4]d);
    };
}
`

// entries is hosts that are built on a machine each, and nobody had before. They
// don't know of what the others save meanwhile, so they can as well be built one
// after another.
func (b *bench) entries(ctx context.Context) error {
	env, err := b.fresh()
	if err != nil {
		return err
	}
	s, err := b.serve(ctx, "service")
	if err != nil {
		return err
	}
	defer s.close()
	if err := b.resolve(); err != nil {
		return err
	}
	files, err := b.randomFiles("files", entryCommon+entryHosts*entryOwn, entryBytes)
	if err != nil {
		return err
	}
	defer os.RemoveAll(files)
	flake, err := b.makeFlake("entries", fmt.Sprintf(hosts, files, entryCommon, entryOwn, entryHosts))
	if err != nil {
		return err
	}
	job, err := b.job(s)
	if err != nil {
		return err
	}
	found, err := b.run(ctx, b.dir, append(env, job...), b.program, "discover", flake)
	if err != nil {
		return err
	}
	matrix, err := matrix(found.stdout)
	if err != nil {
		return err
	}
	if len(matrix) != entryHosts {
		return fmt.Errorf("discover found %d hosts", len(matrix))
	}
	before := len(s.Entries())
	built := 0
	for _, e := range matrix {
		if env, err = b.fresh(); err != nil {
			return err
		}
		result := filepath.Join(b.dir, "result.json")
		if _, err := b.run(ctx, b.dir, append(env, job...), b.program, "build", "--job", e.job, "--result", result); err != nil {
			return err
		}
		n, err := builds(result)
		if err != nil {
			return err
		}
		built += n
	}
	if want := entryHosts * (entryCommon + entryOwn + 1); built != want {
		return fmt.Errorf("%d derivations were built, not %d", built, want)
	}
	var saved int64
	for _, e := range s.Entries()[before:] {
		if strings.Contains(e.Key, "-pack-") {
			saved += e.Size
		}
	}
	const unique = (entryCommon + entryHosts*entryOwn) * entryBytes
	share := float64(saved) / unique
	b.rows = append(b.rows, row{
		Work: "four entries on fresh machines saving what they have built, with 80 % in common: bytes of their packs", Against: "unique bytes, which can't be compressed",
		Value: fmt.Sprintf("%s against %s, %.2f×", megabytes(saved), megabytes(unique), share), Goal: "≤ 1.1×", Met: share <= 1.1 && share >= 1,
	})
	return nil
}

// randomFiles makes a directory of files that are called 0, 1 and so on.
func (b *bench) randomFiles(name string, files, bytes int) (dir string, err error) {
	dir = filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	data := make([]byte, bytes)
	for i := range files {
		rand.Read(data)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}
