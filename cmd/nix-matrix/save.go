package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/store"
)

func newSave(a *app) *cobra.Command {
	s := &saver{app: a}
	cmd := &cobra.Command{
		Use:   "save [STORE-PATH…]",
		Short: "Put store paths into the cache that are not in it yet",
		Long: `Puts store paths into the cache, for "nix-matrix restore" to bring them back: what has
become valid since restore was called, or the closures of the paths that are named. What
the cache has already is not saved again.

By default that is what no public cache has: what was built here, and what nobody has
signed, with the sources that it refers to. With --store-cache all it is everything but
derivations. What restore brings is kept within --store-cache-limit; the directory or the
Actions cache itself is made smaller by "nix-matrix gc".

In GitHub Actions nothing that is wrong with the cache is an error. With a text in
` + encryptionVariable + ` all of it is sealed.`,
		Example: `  nix-matrix restore && nix build .#all && nix-matrix save
  nix-matrix save --store-cache all --cache dir:/srv/cache ./result`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	s.policyFlag(a, cmd, store.Built)
	s.limitFlag(a, cmd)
	s.rootFlag(cmd)
	cmd.Flags().BoolVar(&s.json, "json", false, "print what was saved as JSON")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type saver struct {
	app *app
	packing
	json bool
}

func (s *saver) run(ctx context.Context, args []string) error {
	a := s.app
	if err := errors.Join(a.checkID(), a.loadSeal()); err != nil {
		return err
	}
	policy, err := s.savePolicy()
	if err != nil {
		return err
	}
	limit, err := sizeOf("store-cache-limit", s.limit)
	if err != nil {
		return err
	}
	paths, err := a.storePaths(args)
	if err != nil {
		return err
	}
	n, err := s.open(ctx, a)
	if err != nil {
		return err
	}
	done := saved{Packs: []string{}}
	if policy != store.Off {
		err = s.save(ctx, n, policy, limit, paths, &done)
	}
	if err := a.costs(ctx, "Not all was saved", err); err != nil {
		return err
	}
	return s.tell(done)
}

func (s *saver) save(ctx context.Context, n *nix.Nix, policy store.Policy, limit int64, paths []string, done *saved) error {
	a := s.app
	c, err := a.openCache()
	if err != nil || c == nil {
		return err
	}
	if a.heads = heads("."); !a.keeps() {
		return nil
	}
	own, all, err := a.ownIndex(ctx, c, n.System)
	if err != nil {
		return err
	}
	before, err := s.readBefore(a)
	if err != nil {
		a.warn("All counts as new", err)
	}
	a.show.Doing("looking for what is new")
	defer a.show.Doing("")
	named := len(own.Packs)
	own = own.Without(before.Lost...)
	if len(paths) > 0 {
		paths, err = n.Requisites(ctx, paths...)
	} else {
		paths, err = n.AllValid(ctx)
		there := map[string]bool{}
		for _, path := range before.Valid {
			there[path] = true
		}
		paths = slices.DeleteFunc(paths, func(path string) bool { return there[path] })
	}
	if err != nil {
		return err
	}
	fresh, err := store.New(ctx, n, all.Without(before.Lost...), policy, paths)
	if err != nil {
		return err
	}
	if len(fresh) == 0 {
		if len(own.Packs) < named { // else each restore would look for what is gone
			return a.keepIndex(ctx, c, n.System, own)
		}
		return nil
	}
	start := time.Now()
	a.show.Doing("saving %d store paths", len(fresh))
	now := saved{Packs: []string{}}
	var without lostPaths
	to := &store.Saver{Nix: n, Cache: c, ID: a.id, Seal: a.seal, Lost: without.add, Progress: func(p *store.Pack) {
		now.add(p)
		a.saving(now, len(fresh))
	}}
	packs, err := to.Save(ctx, fresh)
	a.warnLost(without)
	if len(packs) == 0 {
		return err
	}
	own = store.NewIndex(append(packs, own.Packs...)...).Within(limit)
	if kept := a.keepIndex(ctx, c, n.System, own); kept != nil {
		return errors.Join(err, kept) // so nobody finds them
	}
	*done = now
	a.told(now, time.Since(start))
	return err
}

func (s *saver) tell(done saved) error {
	a := s.app
	if err := a.action.SetOutput("saved", strconv.Itoa(done.Paths)); err != nil {
		return fmt.Errorf("set the output saved: %w", err)
	}
	a.show.Close()
	if s.json {
		return a.printJSON(done)
	}
	_, err := fmt.Fprintf(a.streams.out, "%d saved\n", done.Paths)
	return err
}
