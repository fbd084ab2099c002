// Command bf-stage plans a backfill: one task per chunk of the source, kept in
// schema __backfill of the target.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/tsdb"
)

const name = "bf-stage"

type flags struct {
	Source   string `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Target   string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Until    string `arg:"-u,--until" help:"completion point T, exclusive: rows before it are copied" placeholder:"T"`
	From     string `arg:"-F,--from" help:"copy rows from here on, inclusive" placeholder:"T"`
	Filter   string `arg:"-f,--filter" help:"only hypertables (schema.table) and continuous aggregates (schema.view) that match, case-insensitive" placeholder:"REGEX"`
	Up       bool   `arg:"-U,--cascade-up" help:"also the continuous aggregates that depend on a match"`
	Down     bool   `arg:"-D,--cascade-down" help:"also what a matching continuous aggregate depends on"`
	Snapshot string `arg:"-s,--snapshot" help:"read the source in this exported snapshot" placeholder:"ID"`
	Pause    bool   `arg:"--pause-jobs" help:"pause the target's jobs (refresh, retention, compression, reorder) of what is staged; bf-clean gives them back"`
	cli.Common
}

func (flags) Description() string {
	return "Plans a backfill: one task per chunk of the source that holds rows before --until, recorded in schema __backfill of the target.\n" +
		"Prints the newly staged task records. Staging again adds what is new and never duplicates a task."
}

func (flags) Epilogue() string {
	return "With --source alone it prints the plan and records nothing (a dry run); with --target alone it records a plan read from stdin.\n\n" +
		"  bf-stage --source \"$SOURCE\" --target \"$TARGET\" --until 2016-01-02T00:00:00"
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, negative(args), stdout, stderr); done {
		return status
	}
	switch {
	case f.Source == "" && f.Target == "":
		return cli.BadUsage(name, stderr, "--source and --target are required (or BF_SOURCE and BF_TARGET); one alone does its half")
	case f.Source != "" && f.Until == "":
		return cli.BadUsage(name, stderr, "--until is required")
	case f.Source == "" && (f.Until != "" || f.From != "" || f.Filter != "" || f.Up || f.Down || f.Snapshot != ""):
		return cli.BadUsage(name, stderr, "--until, --from, --filter, the cascades and --snapshot choose on the source: give --source")
	case f.Target == "" && f.Pause:
		return cli.BadUsage(name, stderr, "--pause-jobs pauses jobs of the target: give --target")
	case f.Source == "" && cli.IsTerminal(stdin):
		return cli.BadUsage(name, stderr, "no --source, and stdin is a terminal: pipe a plan into it")
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	go func() { <-stop.Requested(); os.Exit(cli.Stopped) }() // before the one commit is only what may be done again
	if err := plan(stop.Context, &f, log, stdin, stdout); err != nil {
		var misfit *stage.Misfit
		if errors.As(err, &misfit) && len(misfit.Differences) > 1 {
			for _, d := range misfit.Differences {
				log.Warn("target: %s", d)
			}
		}
		log.Error(err)
		var bad *stage.BadArgument
		if errors.As(err, &bad) || pg.Code(err) == pg.InvalidRegexp {
			return cli.Usage
		}
		return cli.Failed
	}
	return cli.OK
}

var bound = regexp.MustCompile("^-([0-9]|infinity$)")

// negative joins a bound like -5 to its flag: the parser takes what begins with
// a dash for another flag.
func negative(args []string) (out []string) {
	for _, a := range args {
		if n := len(out); n > 0 && bound.MatchString(a) && slices.Contains([]string{"--from", "-F", "--until", "-u"}, out[n-1]) {
			out[n-1] += "=" + a
		} else {
			out = append(out, a)
		}
	}
	return out
}

func plan(ctx context.Context, f *flags, log *cli.Log, stdin io.Reader, stdout io.Writer) error {
	options := pg.Options{Application: name, Log: log.Info}
	var p *stage.Plan
	if f.Source == "" {
		var err error
		if p, err = stage.Read(stdin); err != nil {
			return err
		}
	} else {
		src, err := tsdb.Open(ctx, pg.Source, f.Source, options)
		if err != nil {
			return err
		}
		defer src.Close()
		p, err = stage.Make(ctx, src, stage.Options{From: f.From, Until: f.Until, Choice: tsdb.Choice{Filter: f.Filter, Up: f.Up, Down: f.Down}, Snapshot: f.Snapshot})
		if err != nil {
			return err
		}
		for _, n := range p.Notes {
			log.Warn("source: %s", n)
		}
		if err := sourceJobs(ctx, src, p, log); err != nil {
			return err
		}
		beyond, err := cagg.Beyond(ctx, src, p)
		if err != nil {
			return err
		}
		for _, view := range beyond {
			log.Warn("source: %s has buckets whose raw data is gone, and is not staged: they will be missing on the target (--cascade-up stages it)", view)
		}
		if f.Target == "" {
			return p.Write(stdout)
		}
	}
	dst, err := tsdb.Open(ctx, pg.Target, f.Target, options)
	if err != nil {
		return err
	}
	defer dst.Close()
	notes, err := stage.Fit(ctx, dst, p)
	for _, n := range notes {
		log.Info("note: %s", n)
	}
	if err != nil {
		return err
	}
	for _, l := range p.Loose {
		log.Warn("target: %s", loose(l))
	}
	if err := queue.Create(ctx, dst.Conn); err != nil {
		return err
	}
	if err := queue.Conflicts(ctx, dst.Conn, p.Source.Origin, p.Tasks); err != nil {
		return err
	}
	// Before there is a task that could be copied: jobs stop changing what is
	// copied to, and aggregates are primed while their range is still empty.
	if err := targetJobs(ctx, dst, p, f.Pause, log); err != nil {
		return err
	}
	if err := cagg.Prime(ctx, dst, p, log.Info); err != nil {
		return err
	}
	recorded, err := queue.Record(ctx, dst.Conn, p.Tasks)
	if err != nil {
		return err
	}
	if n := len(recorded.Retired); n > 0 {
		first := recorded.Retired[0].String()
		if n > 1 {
			first = fmt.Sprintf("%s and %d more", first, n-1)
		}
		log.Info("retired, as other chunks have taken over their rows (renamed, merged or split) and are staged instead: %s", first)
	}
	var bytes int64
	for _, t := range recorded.Staged {
		bytes += t.Bytes
		if err := task.Write(stdout, t); err != nil {
			return err
		}
	}
	log.Info("%d of %d chunks newly staged, about %s, of %s", len(recorded.Staged), len(p.Tasks), cli.Bytes(bytes), hypertables(len(p.Hypertables)))
	return nil
}

func hypertables(n int) string {
	if n == 1 {
		return "1 hypertable"
	}
	return fmt.Sprintf("%d hypertables", n)
}
