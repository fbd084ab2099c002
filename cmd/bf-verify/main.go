// Command bf-verify compares source and target, chunk by chunk.
package main

import (
	"cmp"
	"io"
	"os"

	"bf/lib/cli"
	"bf/lib/task"
	"bf/lib/verify"
)

const name = "bf-verify"

type flags struct {
	Source      string        `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Target      string        `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	All         bool          `arg:"--all" help:"verify every loaded task, also those that are verified"`
	Parallelism int           `arg:"-p,--parallelism" default:"8" help:"chunks compared at the same time, one connection per side each" placeholder:"N"`
	Method      verify.Method `arg:"--method" help:"rows (the default): hash every row; values: the same, but what = calls equal counts as equal (1.0 and 1.00); or summary: count, min, max and sum of every column" placeholder:"METHOD"`
	Records     []string      `arg:"positional" help:"task records, or - to read them from stdin; every loaded, unverified task when there are none" placeholder:"RECORD"`
	cli.Common
}

func (flags) Description() string {
	return "Compares what source and target hold in the staged range of each task, marks equal ones as verified " +
		"and prints a result record per task.\n" +
		"Ends with status 3 when something differs, also if other tasks could not be compared (1)."
}

func (flags) Epilogue() string {
	return "With --source alone it prints a summary record per task; with --target alone it reads summaries and judges.\n\n" +
		"  bf-verify --source \"$SOURCE\" --target \"$TARGET\"\n" +
		"  bf-chunks --target \"$TARGET\" --done | ssh source-host bf-verify - | bf-verify --target \"$TARGET\" -"
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	o := verify.Options{Mode: f.mode(), Method: cmp.Or(f.Method, verify.ByRows),
		Source: f.Source, Target: f.Target, Parallelism: f.Parallelism, All: f.All}
	piped := len(f.Records) == 1 && f.Records[0] == "-" || o.Mode == verify.Judge && len(f.Records) == 0
	switch {
	case f.Source == "" && f.Target == "":
		return cli.BadUsage(name, stderr, "--source and --target are required (or BF_SOURCE and BF_TARGET); "+
			"one alone does its half")
	case !o.Method.Known():
		return cli.BadUsage(name, stderr, "--method is rows, values or summary, not %q", f.Method)
	case f.Method != "" && o.Mode == verify.Judge:
		return cli.BadUsage(name, stderr, "--method is what the summaries were made with: give it with --source")
	case f.Parallelism < 1 || f.Parallelism > 1000:
		return cli.BadUsage(name, stderr, "--parallelism is a number from 1 to 1000, not %d", f.Parallelism)
	case f.All && (len(f.Records) > 0 || o.Mode != verify.Both):
		return cli.BadUsage(name, stderr, "--all chooses tasks: not with records, nor with one side alone")
	case o.Mode == verify.Summarize && len(f.Records) == 0:
		return cli.BadUsage(name, stderr, "no task records: give them as arguments, "+
			"or - to read them from stdin (bf-chunks --done lists them)")
	case piped && cli.IsTerminal(stdin):
		return cli.BadUsage(name, stderr, "stdin is a terminal: pipe records into it")
	case piped:
		o.Records = task.NewReader(stdin)
	case len(f.Records) > 0:
		o.Records, o.Given = task.Arguments(f.Records), len(f.Records)
	}
	log := cli.NewLog(name, stderr, f.Common)
	return verify.Run(o, log.Beside(stdout), log, cli.Signals(log))
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
