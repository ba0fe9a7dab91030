package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/report"
)

func newPlan(a *app) *cobra.Command {
	d := &discoverFlags{}
	var printJSON, mermaid bool
	cmd := &cobra.Command{
		Use:   "plan [INSTALLABLE…]",
		Short: "Show how the builds would be shared, how long they would take, and what that costs",
		Long: `Evaluates as "nix-matrix discover" does, and shows what it would plan: the units,
which are sets of derivations that one job builds for all others, the critical path, and
the expected times for 1, 2 and more jobs at the same time, with the minutes that GitHub
bills in a private repository, by kind of runner, and what skipping, reuse and sharing
save. Nothing is built, and nothing is written to the cache.

The times are those of earlier builds, as far as the cache has them, else 10 s for each
derivation. See "nix-matrix discover --help" for what an INSTALLABLE is.`,
		Example: `  nix-matrix plan
  nix-matrix plan .#nixosConfigurations --helpers 4
  nix-matrix plan --mermaid >units.mmd`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if printJSON && mermaid {
				return usage.Errorf("--json and --mermaid exclude each other: choose one")
			}
			if err := d.arguments(a, args); err != nil {
				return err
			}
			f, err := a.forecast(cmd.Context(), d)
			switch {
			case err != nil:
				return err
			case printJSON:
				return a.printJSON(f)
			case mermaid:
				_, err = io.WriteString(a.streams.out, report.ForecastMermaid(f))
			default:
				_, err = io.WriteString(a.streams.out, report.ForecastText(f))
			}
			return err
		},
	}
	d.flags(cmd)
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	setUpFlag(cmd, &d.setup)
	addFlag(cmd, flagvalue.Bool(&printJSON, false), "json", "print everything as JSON")
	addFlag(cmd, flagvalue.Bool(&mermaid, false), "mermaid", "print the graph of units as a Mermaid diagram")
	return cmd
}

// forecast makes a Plan and forgets it.
func (a *app) forecast(ctx context.Context, flags *discoverFlags) (*plan.Forecast, error) {
	d, err := a.openDiscovery(ctx, flags)
	if err != nil {
		return nil, err
	}
	defer d.Env.Close()
	d.DryRun = true
	p, err := d.Plan(ctx)
	if err != nil {
		return nil, err
	}
	tell(a.log, p)
	return plan.NewForecast(p, d.Planning.Missing), nil
}
