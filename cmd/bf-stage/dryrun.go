package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/source"
	"bf/lib/stage"
	"bf/lib/tsdb"
)

// dryRun tells people what the plan means, and prints it. Nothing is written to
// either side.
func dryRun(e *cli.Env, f *flags, p *stage.Plan) error {
	ctx := e.Stop.Context
	var dst *tsdb.DB
	var misfit *stage.Misfit
	if f.Target != "" {
		var err error
		if dst, err = tsdb.Open(ctx, pg.Target, f.Target, e.Options()); err != nil {
			return err
		}
		defer dst.Close()
		notes, err := stage.Fit(ctx, dst, p)
		if err != nil && !errors.As(err, &misfit) {
			return err
		}
		for _, n := range notes {
			e.Log.Info("in the way: %s", n)
		}
		for _, l := range p.Loose {
			e.Log.Warn("target: %s", loose(l))
		}
		if is, err := stage.Exchanged(ctx, dst, p, f.Until); err != nil {
			return err
		} else if is {
			e.Log.Warn("in the way: the target holds rows before --until, and the source holds none: " +
				"are the two exchanged?")
		}
		if err := targetJobs(ctx, dst, p, false, e.Log); err != nil {
			return err
		}
	}
	forecasts, err := p.Forecasts(ctx, dst)
	if err != nil {
		return err
	}
	if !f.Quiet {
		columns, _ := cli.Size(e.Stderr)
		io.WriteString(e.Stderr, forecastTable(forecasts, columns))
	}
	for _, fc := range forecasts {
		obstacles(e.Log, fc)
	}
	e.Log.Info("locks: %s", locks(f.Source))
	if f.Sample > 0 {
		if err := estimate(ctx, e, f, p, dst); err != nil {
			return err
		}
	}
	if err := p.Write(e.Stdout); err != nil {
		return err
	}
	if misfit != nil {
		return misfit
	}
	return nil
}

// locks says which locks a backfill takes, and who waits for them.
func locks(from string) string {
	s := "target: none on a hypertable while rows are copied; " +
		"at the end of a chunk those that readers and writers of it wait for, for milliseconds, one lane at a time"
	if !source.IsCSV(from) {
		s = "source: ACCESS SHARE on a chunk while it is read; the application reads and writes, " +
			"but drop_chunks, compression and ALTER TABLE wait. " + s
	}
	return s
}

// forecastTable has a line per hypertable, and one of all.
func forecastTable(forecasts []*stage.Forecast, columns int) string {
	rows := [][]string{{"hypertable", "chunks", "compressed", "rows", "to travel", "on the target", "as"}}
	var all stage.Forecast
	cells := func(name string, f *stage.Forecast, how string) {
		count, travels, space := count(f.Rows, f.Bytes), cli.Bytes(f.Bytes), "~"+cli.Bytes(f.Space)
		if f.Unknown {
			count, travels, space = "?", "?", "?"
		}
		rows = append(rows, []string{name, fmt.Sprint(f.Chunks), fmt.Sprint(f.Compressed), count, travels, space, how})
	}
	for _, f := range forecasts {
		cells(cli.Clean(f.Of.String()), f, f.How())
		all.Chunks, all.Compressed, all.Rows = all.Chunks+f.Chunks, all.Compressed+f.Compressed, all.Rows+f.Rows
		all.Bytes, all.Space, all.Unknown = all.Bytes+f.Bytes, all.Space+f.Space, all.Unknown || f.Unknown
	}
	cells("total", &all, "")
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], cli.Width(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := r[0] + strings.Repeat(" ", widths[0]-cli.Width(r[0]))
		for i, c := range r[1 : len(r)-1] {
			line += fmt.Sprintf("  %*s", widths[i+1], c)
		}
		line = strings.TrimRight(line+"  "+r[len(r)-1], " ")
		if columns > 0 {
			line = cli.Cut(line, columns)
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// count is about how many rows there are, for people: ~999, ~12 k, ~3.4 M; ? where
// the planner does not know of any.
func count(n, bytes int64) string {
	if n == 0 && bytes > 0 {
		return "?"
	}
	return "~" + strings.TrimSpace(strings.TrimSuffix(cli.Bytes(n), "B"))
}

// obstacles tells what is in the way of one hypertable.
func obstacles(log *cli.Log, f *stage.Forecast) {
	for _, why := range slices.Sorted(maps.Keys(f.NotRaw)) {
		log.Info("%s: compressed chunks that travel as rows: %d: %s", f.Of, f.NotRaw[why], why)
	}
	if f.Present > 0 {
		log.Info("%s: chunks of the target with rows in the range: %d, rows: %s; they are replaced chunk by chunk",
			f.Of, f.Present, count(f.PresentRows, 1))
	}
	if f.Lacks != "" {
		log.Warn("%s: target: %s", f.Of, f.Lacks)
	}
}

// estimate measures a sample and says how long the copy may take.
func estimate(ctx context.Context, e *cli.Env, f *flags, p *stage.Plan, dst *tsdb.DB) error {
	var all int64
	for _, t := range p.Tasks {
		all += t.Bytes
	}
	src, err := tsdb.Open(ctx, pg.Source, f.Source, e.Options())
	if err != nil {
		return err
	}
	defer src.Close()
	bytes, took, err := p.Sample(ctx, src, int64(f.Sample)<<20)
	if err != nil {
		return err
	}
	if bytes == 0 || took <= 0 {
		e.Log.Info("sample: there is nothing to measure")
		return nil
	}
	gives := float64(bytes) / took.Seconds()
	e.Log.Info("sample: the source gives one lane %s/s (%s in %s)",
		cli.Bytes(int64(gives)), cli.Bytes(bytes), cli.Duration(took.Seconds()))
	if dst != nil {
		takes, err := stage.Network(ctx, dst)
		if err != nil {
			return err
		}
		e.Log.Info("sample: the network to the target takes %s/s", cli.Bytes(int64(takes)))
		gives = min(gives, takes)
	}
	seconds := float64(all) / gives
	e.Log.Info("estimate: %s for %s in one lane; in eight %s at best; what the target's disks take was not measured",
		cli.Duration(seconds), cli.Bytes(all), cli.Duration(seconds/8))
	return nil
}
