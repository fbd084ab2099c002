// Command bf-verify compares source and target, chunk by chunk.
package main

import (
	"cmp"
	"time"

	"bf/lib/cli"
	"bf/lib/schema"
	"bf/lib/source"
	"bf/lib/task"
	"bf/lib/verify"
)

type flags struct {
	Source      string        `arg:"--source,env:BF_SOURCE" help:"connection string of the source, csv:DIR or exec:COMMAND" placeholder:"CONN"`
	Target      string        `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	All         bool          `arg:"--all" help:"verify every loaded task, also those that are verified"`
	Parallelism int           `arg:"-p,--parallelism" default:"8" help:"chunks compared at the same time, one connection per side each" placeholder:"N"`
	Method      verify.Method `arg:"--method" help:"rows (the default): hash every row; values: the same, but what = calls equal counts as equal (1.0 and 1.00); or summary: count, min, max and sum of every column" placeholder:"METHOD"`
	From        string        `arg:"-F,--from" help:"compare all rows from here on, without tasks: did the application write them to both sides?" placeholder:"T"`
	Until       string        `arg:"-u,--until" help:"with --from: only rows before this time, exclusive; --lag ago by default" placeholder:"T"`
	Lag         time.Duration `arg:"--lag" default:"1m" help:"with --from: how long it may take until a row is on both sides; what differs is compared again after it" placeholder:"DURATION"`
	Filter      string        `arg:"-f,--filter" help:"with --from: only hypertables (schema.table) that match, case-insensitive" placeholder:"REGEX"`
	Schema      bool          `arg:"--schema" help:"compare the schemas of both sides instead"`
	Records     []string      `arg:"positional" help:"task records, or - to read them from stdin; every loaded, unverified task when there are none" placeholder:"RECORD"`
	cli.Common
}

func (*flags) Description() string {
	return "Compares what source and target hold in the staged range of each task, marks equal ones as verified " +
		"and prints a result record per task.\n" +
		"With --from it compares a range of all hypertables, without tasks, and prints the plan that has bf-stage copy " +
		"again what differs; with --schema the schemas.\n" +
		"Ends with status 3 when something differs, also if other tasks could not be compared (1)."
}

func (*flags) Epilogue() string {
	return "With --source alone it prints a summary record per task; " +
		"with --target alone it reads summaries and judges.\n\n" +
		"  bf-verify --source \"$SOURCE\" --target \"$TARGET\"\n" +
		"  bf-verify --source \"$SOURCE\" --target \"$TARGET\" --from T | bf-stage --target \"$TARGET\"\n" +
		"  bf-verify --source \"$SOURCE\" --target \"$TARGET\" --schema\n" +
		"  bf-chunks --target \"$TARGET\" --done | ssh source-host bf-verify - | bf-verify --target \"$TARGET\" -"
}

func main() { cli.Main("bf-verify", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Source == "" && f.Target == "":
		return e.Usagef("--source and --target are required (or BF_SOURCE and BF_TARGET); one alone does its half")
	case f.Target == "" && source.IsText(f.Source):
		return e.Usagef("--target is required with CSV (csv:, exec:): it is compared there")
	case source.IsText(f.Source) && (f.From != "" || f.Schema || f.Until != "" || f.Filter != ""):
		return e.Usagef("--from, --until, --filter and --schema compare databases: not with CSV (csv:, exec:)")
	case f.From != "" || f.Schema || f.Until != "" || f.Filter != "":
		return f.checkWhole(e)
	case f.Method != "" && !f.Method.Known():
		return e.Usagef("--method is rows, values or summary, not %q", f.Method)
	case f.Method != "" && f.mode() == verify.Judge:
		return e.Usagef("--method is what the summaries were made with: give it with --source")
	case f.Parallelism < 1 || f.Parallelism > 1000:
		return e.Usagef("--parallelism is a number from 1 to 1000, not %d", f.Parallelism)
	case f.All && (len(f.Records) > 0 || f.mode() != verify.Both):
		return e.Usagef("--all chooses tasks: not with records, nor with one side alone")
	case f.mode() == verify.Summarize && len(f.Records) == 0:
		return e.Usagef("no task records: give them as arguments, or - to read them " +
			"from stdin (bf-chunks --done lists them)")
	case f.piped() && cli.IsTerminal(e.Stdin):
		return e.Usagef("stdin is a terminal: pipe records into it")
	}
	return nil
}

// checkWhole checks the flags of the comparisons that know no tasks.
func (f *flags) checkWhole(e *cli.Env) error {
	switch {
	case f.mode() != verify.Both:
		return e.Usagef("--from and --schema compare both sides: give --source and --target")
	case f.All || len(f.Records) > 0:
		return e.Usagef("--from and --schema know no tasks: neither --all nor records go with them")
	case f.Schema && (f.From != "" || f.Until != "" || f.Filter != "" || f.Method != ""):
		return e.Usagef("--schema compares all of both schemas: it takes no range, no --filter and no --method")
	case f.From == "" && !f.Schema:
		return e.Usagef("--until and --filter belong to --from: without it, tasks are compared")
	case f.Method != "" && f.Method != verify.ByRows && f.Method != verify.ByValue:
		return e.Usagef("--method of --from is rows or values, not %q", f.Method)
	case f.Lag < 0:
		return e.Usagef("--lag is a duration, not %s", f.Lag)
	case f.Parallelism < 1 || f.Parallelism > 1000:
		return e.Usagef("--parallelism is a number from 1 to 1000, not %d", f.Parallelism)
	}
	return nil
}

// Rewrite joins a negative bound to its flag.
func (*flags) Rewrite(args []string) []string { return cli.JoinBounds(args) }

func run(e *cli.Env, f *flags) error {
	o := verify.Options{Mode: f.mode(), Method: cmp.Or(f.Method, verify.ByRows),
		Source: f.Source, Target: f.Target, Parallelism: f.Parallelism, All: f.All}
	switch {
	case f.Schema:
		return compareSchemas(e, f)
	case f.From != "":
		return verify.RunStretch(o, verify.Stretch{From: f.From, Until: f.Until, Filter: f.Filter, Lag: f.Lag},
			e.Log.Beside(e.Stdout), e.Log, e.Stop)
	case f.piped():
		o.Records = task.NewReader(e.Stdin)
	case len(f.Records) > 0:
		o.Records, o.Given = task.Arguments(f.Records), len(f.Records)
	}
	return cli.Exit(verify.Run(o, e.Log.Beside(e.Stdout), e.Log, e.Stop))
}

// compareSchemas prints what the schemas differ in.
func compareSchemas(e *cli.Env, f *flags) error {
	e.Stop.Immediately()
	c, err := schema.Compare(e.Stop.Context, f.Source, f.Target, e.Options())
	if err != nil {
		return err
	}
	for _, d := range c.Differences {
		e.Log.Warn("%s", d)
		if err := task.Write(e.Stdout, d); err != nil {
			return err
		}
	}
	e.Log.Info("%d objects of the source compared: %d differences", c.Objects, len(c.Differences))
	if c.Resume != "" {
		e.Log.Info("jobs that are scheduled on the source are paused on the target; after the switch: %s", c.Resume)
	}
	if len(c.Differences) > 0 {
		return cli.Exit(cli.Differs)
	}
	return nil
}

// piped reports whether records come from stdin.
func (f *flags) piped() bool {
	return len(f.Records) == 1 && f.Records[0] == "-" || f.mode() == verify.Judge && len(f.Records) == 0
}

// mode follows from the sides that are given.
func (f *flags) mode() verify.Mode {
	switch {
	case f.Target == "":
		return verify.Summarize
	case f.Source == "":
		return verify.Judge
	}
	return verify.Both
}
