// Command bf-verify compares source and target, chunk by chunk.
package main

import (
	"cmp"
	"time"

	"bf/lib/cli"
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
		"With --from it compares a range of all hypertables, without tasks, and prints the plan " +
		"that has bf-stage copy again what differs; with --schema the schemas.\n" +
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
