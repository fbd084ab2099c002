// Command bf-stage plans a backfill: one task per chunk of the source, kept in
// schema __backfill of the target.
package main

import (
	"errors"
	"io"
	"os"
	"regexp"
	"slices"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/stage"
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
	Pause    bool   `arg:"--pause-jobs" help:"pause the target's jobs (refresh, retention, compression, reorder) of what is staged; bf-clean resumes them"`
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
