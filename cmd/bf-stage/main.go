// Command bf-stage plans a backfill: one task per chunk of the source, kept in
// schema __backfill of the target.
package main

import (
	"errors"

	"bf/lib/cli"
	"bf/lib/source"
	"bf/lib/stage"
)

type flags struct {
	Source   string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source, csv:DIR or exec:COMMAND" placeholder:"CONN"`
	Target   string   `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Until    string   `arg:"-u,--until" help:"completion point T, exclusive: rows before it are copied" placeholder:"T"`
	From     string   `arg:"-F,--from" help:"copy rows from here on, inclusive" placeholder:"T"`
	Filter   string   `arg:"-f,--filter" help:"only hypertables (schema.table) and continuous aggregates (schema.view) that match, case-insensitive" placeholder:"REGEX"`
	Up       bool     `arg:"-U,--cascade-up" help:"also the continuous aggregates that depend on a match"`
	Down     bool     `arg:"-D,--cascade-down" help:"also what a matching continuous aggregate depends on"`
	Maps     []string `arg:"--map,separate" help:"fill a hypertable of the target from a table or view of another name; repeatable" placeholder:"SOURCE=TARGET"`
	Scan     string   `arg:"--scan" help:"how often a table without a useful index may be read: auto or any" default:"auto" placeholder:"HOW"`
	SkipNull bool     `arg:"--skip-null-times" help:"leave behind rows of a table whose time is NULL or -infinity"`
	Columns  bool     `arg:"--columnstore" help:"compress the rows of a table as they arrive, where compression is enabled"`
	Into     string   `arg:"--into" help:"CSV: the hypertable of the target to fill" placeholder:"TABLE"`
	csvFlags
	Snapshot string   `arg:"-s,--snapshot" help:"read the source in this exported snapshot" placeholder:"ID"`
	Pause    bool     `arg:"--pause-jobs" help:"pause the target's jobs (refresh, retention, compression, reorder) of what is staged; bf-clean resumes them"`
	Yes      bool     `arg:"-y,--yes" help:"go on where the target holds rows before --until and the source holds none"`
	Dry      bool     `arg:"--dry-run" help:"tell what it would mean and print the plan; write nothing to either side"`
	Sample   int      `arg:"--sample" help:"with --dry-run: copy the first N MB to nowhere and estimate the time" placeholder:"N"`
	Paths    []string `arg:"positional" help:"of csv:DIR: the files, below DIR" placeholder:"FILE"`
	cli.Common
}

func (*flags) Description() string {
	return "Plans a backfill: one task per chunk of the source that holds rows before --until, " +
		"recorded in schema __backfill of the target.\n" +
		"Prints the newly staged task records. Staging again adds what is new and never duplicates a task."
}

func (*flags) Epilogue() string {
	return "With --source alone it prints the plan and records nothing; " +
		"with --target alone it records a plan read from stdin.\n\n" +
		"  bf-stage --source \"$SOURCE\" --target \"$TARGET\" --until 2016-01-02T00:00:00"
}

func main() { cli.Main("bf-stage", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	switch {
	case f.Source == "" && f.Target == "":
		return e.Usagef("--source and --target are required (or BF_SOURCE and BF_TARGET); one alone does its half")
	case f.Source != "" && f.Until == "":
		return e.Usagef("--until is required")
	case f.Source == "" && (f.Until != "" || f.From != "" || f.Filter != "" || f.Up || f.Down || f.Snapshot != "" ||
		f.Maps != nil || f.SkipNull || f.Columns):
		return e.Usagef("--until, --from, --filter, --map, the cascades and --snapshot " +
			"choose on the source: give --source")
	case f.Scan != "auto" && f.Scan != "any":
		return e.Usagef("--scan is auto or any, not %q", f.Scan)
	case source.IsCSV(f.Source):
		return f.checkCSV(e)
	case f.Into != "" || f.csvFlags != csvFlags{} || len(f.Paths) > 0:
		return e.Usagef("--into, FILE and how CSV is written go with a source that is CSV (csv:DIR or exec:COMMAND)")
	case f.Target == "" && f.Maps != nil:
		return e.Usagef("--map names hypertables of the target: give --target")
	case f.Target == "" && f.Pause:
		return e.Usagef("--pause-jobs pauses jobs of the target: give --target")
	case f.Dry && f.Source == "":
		return e.Usagef("--dry-run makes the plan: give --source")
	case f.Dry && f.Pause:
		return e.Usagef("--dry-run changes nothing, and --pause-jobs does")
	case f.Sample < 0 || f.Sample > 0 && !f.Dry:
		return e.Usagef("--sample is a number of megabytes, for --dry-run")
	case f.Source == "" && cli.IsTerminal(e.Stdin):
		return e.Usagef("no --source, and stdin is a terminal: pipe a plan into it")
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	e.Stop.Immediately() // staging can be repeated, whatever of it was done
	err := plan(e, f)
	var misfit *stage.Misfit
	if errors.As(err, &misfit) && len(misfit.Differences) > 1 {
		for _, d := range misfit.Differences {
			e.Log.Warn("target: %s", d)
		}
	}
	var bad *stage.BadFiles
	if errors.As(err, &bad) && bad.N > 1 {
		for _, b := range bad.First {
			e.Log.Warn("source: %s", b)
		}
	}
	return err
}

// Rewrite joins a negative bound to its flag.
func (*flags) Rewrite(args []string) []string { return cli.JoinBounds(args) }
