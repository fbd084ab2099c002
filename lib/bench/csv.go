package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The contests of CSV: what copies a file into a hypertable today against files and a command as
// sources, whole pipelines with bf-stage. The source's server has no part in them.
const (
	csvFile    = "a CSV file, 2 indexes"
	csvCommand = "a command, 2 indexes"
)

const (
	csvTable = `(time timestamptz not null, device_id int not null, value float8, note text) ` +
		`with (autovacuum_enabled = off)`
	csvDays = 4
	// csvLanes fills the table from the source in $0, whose files are the arguments.
	csvLanes = `bf-stage -q --source "$0" --target "$TARGET" --into readings --from 2024-01-01 --until 2024-01-05 "$@" \
            >/dev/null || exit
        for i in $(seq %d); do
            bf-chunks --target "$TARGET" --claim | bf-dump -q --source "$0" | bf-load -q --target "$TARGET" >/dev/null &
            pids="$pids $!"
        done
        for p in $pids; do wait $p || exit; done`
)

// csvSources has the contests of CSV, in files and from commands.
type csvSources struct{ *bench }

// files writes a file of some days, and one of each.
func (f csvSources) files() (err error) {
	if f.dir != "" {
		return nil
	}
	if f.dir, err = os.MkdirTemp("", "bf-bench"); err != nil {
		return err
	}
	all, err := os.Create(filepath.Join(f.dir, "all.csv"))
	if err != nil {
		return err
	}
	defer all.Close()
	const header = "time,device_id,value,note\n"
	fmt.Fprint(all, header)
	begin, each := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), f.rows/2
	for d := range csvDays {
		one, err := os.Create(filepath.Join(f.dir, begin.AddDate(0, 0, d).Format(time.DateOnly)+".csv"))
		if err != nil {
			return err
		}
		fmt.Fprint(one, header)
		// Not in memory: what we have takes part in the peak of each process that we start.
		s := bufio.NewWriterSize(io.MultiWriter(one, all), 1<<20)
		for i := range each {
			t := begin.AddDate(0, 0, d).Add(24 * time.Hour / time.Duration(each) * time.Duration(i)).
				Truncate(time.Millisecond)
			s.Write(t.AppendFormat(s.AvailableBuffer(), "2006-01-02 15:04:05.000+00,"))
			fmt.Fprintf(s, "%d,%g,status %d of the device\n", i%1000, float64(i%7919)/8, i%100)
		}
		if err := errors.Join(s.Flush(), one.Close()); err != nil {
			return err
		}
	}
	return nil
}

// empty makes the hypertable, without tasks.
func (f csvSources) empty() error {
	return f.dst.exec("drop schema if exists __backfill cascade; drop table if exists readings; " +
		table("readings", csvTable, twoIndexes) + "; checkpoint")
}

// copied is the variant that copies the file without bf.
func (f csvSources) copied() *variant {
	name, run := f.byLines("readings", func() []string {
		return []string{"tail", "-n", "+2", filepath.Join(f.dir, "all.csv")} // without the header
	})
	return &variant{peer: true, name: name, prepare: f.empty, run: run}
}

// fromCSV fills the hypertable by bf.
func (f csvSources) fromCSV(source func() []string) func(m *meter) error {
	return func(m *meter) error {
		return m.pipe("", append([]string{"sh", "-c", fmt.Sprintf(csvLanes, lineWorkers)}, source()...))
	}
}

func (f csvSources) csvFiles() *contest {
	source := func() []string { return []string{"csv:" + f.dir, "all.csv"} }
	attach := false
	return &contest{name: csvFile, variants: []*variant{
		f.copied(),
		{name: fmt.Sprintf("bf, csv:, %d lanes", lineWorkers), prepare: f.empty, run: func(m *meter) (err error) {
			err = f.fromCSV(source)(m)
			attach = f.attached()
			return err
		}},
		{name: "bf-dump alone", run: func(m *meter) error {
			return m.pipe("", []string{"sh", "-c",
				`bf-chunks --target "$TARGET" --all | bf-dump -q --source "$0" >/dev/null`, source()[0]})
		}},
	}, judge: func(c *contest) {
		f.judgeCSV(c, "CSV", attach)
		f.check("CSV: CPU of bf-dump against the target's",
			c.variants[2].median(client)/max(c.variants[1].median(target), 1e-9), 0.2)
	}}
}

func (f csvSources) csvCommands() *contest {
	attach := false
	return &contest{name: csvCommand, variants: []*variant{
		f.copied(),
		{name: fmt.Sprintf("bf, exec:, %d lanes", lineWorkers), prepare: f.empty, run: func(m *meter) (err error) {
			err = f.fromCSV(func() []string { return []string{`exec:cat "` + f.dir + `/${BF_FROM%% *}.csv"`} })(m)
			attach = f.attached()
			return err
		}},
	}, judge: func(c *contest) { f.judgeCSV(c, "a command", attach) }}
}

func (f csvSources) judgeCSV(c *contest, what string, attach bool) {
	lines, bf := c.variants[0], c.variants[1]
	if attach {
		f.check(what+": target CPU against copying by lines", over(bf, lines, target), 0.6)
	} else {
		f.check(what+": this TimescaleDB takes no table as a chunk", 0, 0.6)
	}
	f.check(what+": wall against copying by lines, at equal workers", over(bf, lines, wall), 1)
	f.check(what+": peak memory of a process, MiB", bf.median(memory), 64)
	all := func(s sample) float64 { return client(s) + target(s) }
	f.check(what+": share of the clients' CPU in all", bf.median(client)/max(bf.median(all), 1e-9), 0.05)
}
