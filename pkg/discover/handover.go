package discover

import (
	"context"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/storecache"
)

// HandOver stores the Plan and its derivations for the jobs that build: in the cache, and in the files
// planFile and PackFile, which become artifacts of the run. It returns the key of the Plan.
func (d *Discovery) HandOver(ctx context.Context, p *job.Plan, planFile string) (key string, err error) {
	switch {
	case len(p.Entries) == 0:
	case d.evaluation.packed:
		p.Drvs = d.evaluation.Plan.Drvs
	default:
		d.log.Doing("packing derivations")
		if p.Drvs, err = d.packDrvs(ctx, p); err != nil {
			return "", err
		}
	}
	d.Keep(ctx, p)
	p.Run, p.Attempt = d.docs.Run, d.docs.Attempt
	data, err := Marshal(p)
	if err != nil {
		return "", err
	}
	if err := d.docs.WritePlan(planFile, data); err != nil {
		return "", err
	}
	key, err = d.docs.SavePlan(ctx, data)
	return key, d.handoverFailed(err)
}

// handoverFailed returns the error of a cache that cannot be written, unless the files replace it: in
// GitHub Actions they become artifacts.
func (d *Discovery) handoverFailed(err error) error {
	switch {
	case err == nil:
		return nil
	case d.host.Running:
		d.log.Warn("Cannot write to the Actions cache, so an artifact takes its place", err)
		return nil
	case d.InFiles && documents.DiskFull(err):
		d.log.Warn("Cannot write to the cache, so build needs --plan and --drvs", err)
		return nil
	default:
		return err
	}
}

func (d *Discovery) packDrvs(ctx context.Context, p *job.Plan) (*job.DrvPack, error) {
	drvs := toBuild(p)
	if roots, err := d.Env.AddTempRoots(ctx, drvs...); err != nil {
		d.log.Warn("A garbage collection may remove the derivations", err)
	} else {
		defer roots.Close()
	}
	packed, err := storecache.PackDrvs(ctx, d.Env.Nix, d.docs.ID, d.PackFile, drvs, d.docs.Seal)
	if err != nil {
		return nil, err
	}
	drv := &job.DrvPack{Size: packed.Size, Paths: packed.Paths, SHA256: packed.SHA256}
	if d.docs.Cache != nil {
		if drv.Key, err = packed.Save(ctx, d.docs.Cache, d.PackFile); err != nil {
			return drv, d.handoverFailed(err)
		}
	}
	return drv, nil
}
