package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/text"
)

func newBuild(a *app) *cobra.Command {
	b := &builder{app: a}
	cmd := &cobra.Command{
		Use:   "build --job JSON",
		Short: "Build one entry of the matrix, without evaluating anything",
		Long: `Builds one entry of the matrix that discover printed. Its plan and derivations
come from the cache (or from files, with --plan and --drvs); no checkout is needed
and no evaluator is started. Outputs are pushed to the binary caches that --push
names.

The outputs of earlier runs that this build needs are restored from the cache, and new
outputs are saved for later runs: in GitHub Actions by default, elsewhere with
--store-cache.

A Result is written in any case: when the build fails, and when a signal stops it.

` + secretsHelp,
		Example: `  nix-matrix build --job "$(nix-matrix discover | jq '.include[0]')"
  nix-matrix build --job "$JOB" --push s3://my-cache --result result.json`,
		Args: noArguments("build takes no %q. Give one row of the matrix with --job"),
		// A wrong value is an error of the build, so that the Result says it.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			b.wrong = readFlags(cmd, a.action)
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context()) },
	}
	bind(cmd, flagvalue.Text(&b.job, "JSON", ""), "job")
	bindAs(cmd, flagvalue.Text(&b.planFile, "FILE", ""), "plan", "file with the plan, instead of the cache")
	bindAs(cmd, flagvalue.Text(&b.drvsFile, "FILE", ""), "drvs", "file with the pack of derivations, where the cache has none")
	cmd.Flags().StringVar(&b.resultFile, "result", "", "write the Result to `FILE`; - is stdout")
	missingFlag(cmd, &b.missingOK)
	b.access.flags(cmd)
	b.access.pushFlags(cmd)
	b.working.flags(a, cmd)
	b.packing.restoreFlags(a, cmd)
	b.packing.policyFlag(cmd, a.defaultPolicy())
	setUpFlag(cmd, &b.setup)
	cmd.Flags().StringVar(&b.logsDir, "logs", "", "keep the whole logs of what failed in `DIR`")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type builder struct {
	app        *app
	docs       *documents.Store
	job        string
	planFile   string
	drvsFile   string
	resultFile string
	logsDir    string
	setup      string
	access     accessFlags
	working    workingFlags
	packing    packing
	wrong      error // values of flags
	// missingOK makes a missing plan or pack an output of the step instead of a failure.
	missingOK bool
}

func (b *builder) run(ctx context.Context) error {
	a := b.app
	a.collectOften()
	entry, err := job.ParseEntry([]byte(b.job))
	if err != nil {
		return errors.Join(usage.Wrap(err), b.wrong)
	}
	if b.docs, err = a.documents(); err != nil {
		return err
	}
	result := a.newResult(entry, entry.Plan)
	if err := b.placeResult(entry, result); err != nil {
		return err
	}
	if interrupted := *result; b.resultFile != "-" { // a write to a pipe may wait for its reader
		interrupted.Outcome, interrupted.Error = job.OutcomeCancelled, "a second signal stopped the worker"
		a.onAbort(func() { _ = b.writeResult(&interrupted) })
	}
	err = b.build(ctx, entry, result)
	a.onAbort(nil) // the Result says more now
	if err != nil {
		result.Error = err.Error()
		result.Conclude(ctx.Err() != nil)
		result.Finished = time.Now().UTC()
	}
	if werr := errors.Join(b.writeResult(result), b.tellLogs(entry.ID)); werr != nil {
		return errors.Join(err, werr)
	}
	if errors.Is(err, documents.ErrMissing) && b.missingOK && ctx.Err() == nil {
		a.log.Printf("%v: trying the artifact of the run", err)
		return a.action.SetOutput("handover", "missing")
	}
	b.saveResult(ctx, result)
	if err != nil {
		return err
	}
	a.announce(result)
	for _, details := range report.ResultDetails(result, a.action.Running()) {
		a.log.Printf("%s", details)
	}
	if !result.Outcome.OK() {
		return &redError{string(result.Outcome)}
	}
	return nil
}

// saveResult saves the Result for the report of the run. If that fails, the artifact takes its place.
func (b *builder) saveResult(ctx context.Context, result *job.Result) {
	if !b.app.action.Running() || b.docs.Cache == nil || ctx.Err() != nil {
		return
	}
	if err := b.docs.SaveResult(ctx, result); err != nil && ctx.Err() == nil {
		reuse.WarnCache(b.app.log, "Cannot save the result in the Actions cache, so the report takes the artifact", err)
	}
}

// build builds the entry. The error says why nothing could be built.
func (b *builder) build(ctx context.Context, entry *job.Entry, result *job.Result) (err error) {
	defer recovered(&err) // so that it is in the Result
	a := b.app
	if b.wrong != nil {
		return b.wrong
	}
	options := b.working.options(a)
	options.ShowLogs, options.KeepLogs = true, b.logsDir
	if a.action.Running() {
		options.LogArtifact = a.id + ".log."
	}
	if _, err := access.Destinations(b.access.Push); err != nil {
		return err
	}
	if b.docs.Cache, err = a.openCache(b.docs.Trust); err != nil {
		return err
	}
	scripts, err := a.hooks()
	if err != nil {
		return err
	}
	a.log.Start(1)
	err = (&build.Builder{
		Options: options, Host: a.host, Access: &b.access.Config, Docs: b.docs, Hooks: scripts, Log: a.log,
		SetUp: b.setup, PlanFile: b.planFile, DrvsFile: b.drvsFile, Policy: b.packing.policy, Engine: b.packing.engine,
	}).Build(ctx, entry, result)
	a.log.Finish(err == nil && result.Outcome != job.OutcomeFailed)
	return err
}

// placeResult chooses the file of the Result and writes a first one, which the report reads if this process
// is killed.
func (b *builder) placeResult(entry *job.Entry, result *job.Result) error {
	a := b.app
	if b.resultFile == "" && a.action.Running() {
		dir, err := a.action.TempDir(a.id)
		if err != nil {
			return err
		}
		b.resultFile = filepath.Join(dir, entry.ID+".json")
		b.logsDir = cmp.Or(b.logsDir, filepath.Join(dir, "logs"))
	}
	if b.resultFile == "" || b.resultFile == "-" {
		return nil
	}
	if err := b.writeResult(result); err != nil {
		return err
	}
	return a.action.SetOutput("result", b.resultFile)
}

func (b *builder) writeResult(result *job.Result) error {
	switch b.resultFile {
	case "":
		return nil
	case "-":
		data, err := result.Marshal()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(b.app.streams.out, "%s\n", text.NoCommandsJSON(data))
		return err
	default:
		return b.docs.WriteResult(b.resultFile, result)
	}
}

// tellLogs sets the output with the logs of failed derivations, for the step that uploads them.
func (b *builder) tellLogs(entry string) error {
	dir := filepath.Join(b.logsDir, entry)
	if logs, _ := filepath.Glob(filepath.Join(dir, "*.log")); b.logsDir == "" || len(logs) == 0 {
		return nil
	}
	if err := b.docs.SealLogs(dir); err != nil {
		return err
	}
	b.app.log.Printf("the whole logs of failed derivations are in %s", dir)
	return b.app.action.SetOutput("logs", dir)
}
