// Command bf-caggs refreshes the continuous aggregates of the target up to
// where the source's are materialized.
package main

import (
	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/source"
	"bf/lib/tsdb"
)

type flags struct {
	Source string `arg:"--source,env:BF_SOURCE" help:"connection string of the source; without it, its watermarks are those of the staged backfill" placeholder:"CONN"`
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Filter string `arg:"-f,--filter" help:"only continuous aggregates (schema.view) that match, case-insensitive" placeholder:"REGEX"`
	Up     bool   `arg:"-U,--cascade-up" help:"also the continuous aggregates that depend on a match"`
	Down   bool   `arg:"-D,--cascade-down" help:"also the continuous aggregates that a match depends on"`
	Dry    bool   `arg:"--dry-run" help:"print the windows that would be refreshed, and refresh nothing"`
	cli.Common
}

func (*flags) Description() string {
	return "Refreshes the continuous aggregates of the target, from where they are materialized to " +
		"where the source's are, window by window.\n" +
		"Copied buckets are kept as they are. Run it when the chunks are copied, or alone: without a staged backfill " +
		"it refreshes what has changed since the target's last refresh, and creates nothing there.\n" +
		"Prints a record per window. Run again, it goes on where it was stopped."
}

func (*flags) Epilogue() string {
	return "  bf-caggs --source \"$SOURCE\" --target \"$TARGET\""
}

func main() { cli.Main("bf-caggs", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	if f.Target == "" {
		return e.Usagef("--target is required (or BF_TARGET)")
	}
	if source.IsCSV(f.Source) { // it has no watermarks
		f.Source = ""
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	return cagg.Run(e, cagg.Options{Source: f.Source, Target: f.Target, Dry: f.Dry,
		Choice: tsdb.Choice{Filter: f.Filter, Up: f.Up, Down: f.Down}})
}
