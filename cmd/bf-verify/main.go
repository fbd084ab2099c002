// Command bf-verify compares source and target, chunk by chunk.
package main

import (
	"cmp"

	"bf/lib/cli"
	"bf/lib/task"
	"bf/lib/verify"
)

type flags struct {
	Source      string        `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Target      string        `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	All         bool          `arg:"--all" help:"verify every loaded task, also those that are verified"`
	Parallelism int           `arg:"-p,--parallelism" default:"8" help:"chunks compared at the same time, one connection per side each" placeholder:"N"`
	Method      verify.Method `arg:"--method" help:"rows (the default): hash every row; values: the same, but what = calls equal counts as equal (1.0 and 1.00); or summary: count, min, max and sum of every column" placeholder:"METHOD"`
	Records     []string      `arg:"positional" help:"task records, or - to read them from stdin; every loaded, unverified task when there are none" placeholder:"RECORD"`
	cli.Common
}

func (*flags) Description() string {
	return "Compares what source and target hold in the staged range of each task, marks equal ones as verified " +
		"and prints a result record per task.\n" +
		"Ends with status 3 when something differs, also if other tasks could not be compared (1)."
}

func (*flags) Epilogue() string {
	return "With --source alone it prints a summary record per task; " +
		"with --target alone it reads summaries and judges.\n\n" +
		"  bf-verify --source \"$SOURCE\" --target \"$TARGET\"\n" +
		"  bf-chunks --target \"$TARGET\" --done | ssh source-host bf-verify - | bf-verify --target \"$TARGET\" -"
}

func main() { cli.Main("bf-verify", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Source == "" && f.Target == "":
		return e.Usagef("--source and --target are required (or BF_SOURCE and BF_TARGET); one alone does its half")
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

func run(e *cli.Env, f *flags) error {
	o := verify.Options{Mode: f.mode(), Method: cmp.Or(f.Method, verify.ByRows),
		Source: f.Source, Target: f.Target, Parallelism: f.Parallelism, All: f.All}
	switch {
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
