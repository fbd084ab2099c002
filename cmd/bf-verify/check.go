package main

import (
	"bf/lib/cli"
	"bf/lib/source"
	"bf/lib/verify"
)

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Source == "" && f.Target == "":
		return e.Usagef("--source and --target are required (or BF_SOURCE and BF_TARGET); one alone does its half")
	case f.Target == "" && source.IsCSV(f.Source):
		return e.Usagef("--target is required with CSV (csv:, exec:): it is compared there")
	case source.IsCSV(f.Source) && (f.From != "" || f.Schema || f.Until != "" || f.Filter != ""):
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
