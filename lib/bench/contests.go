package main

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The names of the contests, which also name their data.
const (
	indexed  = "one chunk, 3 indexes"
	bare     = "one chunk, no index"
	several  = "8 chunks, 3 indexes"
	tiny     = "1000 tiny chunks"
	packed   = "one compressed chunk"
	huge     = "values of 100 MB"
	planning = "many chunks"
)

const (
	wideTable = `(time timestamptz not null, device_id int not null, c1 float8, c2 float8, c3 float8, ` +
		`c4 float8, c5 float8,
        c6 float8, c7 float8, c8 float8, c9 float8, c10 float8, tags text) with (autovacuum_enabled = off)`
	wideRows = `select timestamptz '2024-01-01' + i * (interval '1 day' * %[2]d / %[1]d), i %% 100, random(), random(),
        random(), random(), random(),
        random(), random(), random(), random(), random(), 'x' || md5(i::text) || '_'
        from generate_series(0, %[1]d - 1) i`
	// Measured values, as they are worth compressing: few digits.
	packedRows = `select timestamptz '2024-01-01' + i * (interval '1 day' * %[2]d / %[1]d), i %% 100,
        round(random() * 9), round(random() * 9), round(random() * 9), round(random() * 9),
        round(random() * 9), round(sin(i / 1e4) * 50), round(sin(i / 1e3) * 50), round(sin(i / 1e5) * 50), i / 1000,
        i / 1000, 'x' || md5((i %% 100)::text) || '_' from generate_series(0, %[1]d - 1) i`
	threeIndexes = `create index on %[1]s (time desc); create index on %[1]s (device_id, time desc);
        create unique index on %[1]s (device_id, time);`
	tinyTable  = `(time timestamptz not null, device_id int not null, v float8) with (autovacuum_enabled = off)`
	twoIndexes = `create index on %[1]s (time desc); create index on %[1]s (device_id, time desc);`
	hyper      = `select create_hypertable('%s', 'time', chunk_time_interval => interval '1 day',
        create_default_indexes => false);`
)

// table is the DDL of a hypertable, the same on both sides but for indexes.
func table(name, columns, indexes string) string {
	if strings.Contains(indexes, "%") {
		indexes = fmt.Sprintf(indexes, name)
	}
	return "create table " + name + " " + columns + ";" + fmt.Sprintf(hyper, name) + indexes
}

// data fills the source for a contest.
func (b *bench) data(contest string) error {
	fill := func(name, columns, rows string) error {
		return b.src.exec("drop table if exists " + name + "; " + table(name, columns, "") + "insert into " + name +
			" " + rows + "; analyze " + name + "; checkpoint")
	}
	switch contest {
	case plain:
		return plainTables{b}.plainData("plain_indexed", 3, "create index on plain_indexed (time);")
	case unread:
		return plainTables{b}.plainData("plain_heap", 20, "")
	case indexed, bare:
		if b.wide {
			return nil
		}
		b.wide = true
		return fill("wide", wideTable, fmt.Sprintf(wideRows, b.rows, 1))
	case several:
		return fill("parts", wideTable, fmt.Sprintf(wideRows, b.rows*2, 8))
	case tiny:
		return fill("tiny", tinyTable, fmt.Sprintf("select timestamptz '2020-01-01' + i * "+
			"(interval '1000 days' / %[1]d), i %% 10, i from generate_series(0, %[1]d - 1) i", min(b.rows, 1_000_000)))
	case packed:
		if err := fill("packed", wideTable, fmt.Sprintf(packedRows, b.rows, 1)); err != nil {
			return err
		}
		// What only the target demands, uniqueness here, makes the rows travel.
		return b.src.exec(fmt.Sprintf(threeIndexes, "packed") + compress +
			"select compress_chunk(c) from show_chunks('packed') c")
	case huge:
		return fill("huge", "(time timestamptz not null, v text)",
			"select timestamptz '2024-01-01', repeat('x', 100000000) from generate_series(1, 3)")
	case csvFile, csvCommand:
		return csvSources{b}.files()
	case dense:
		return hypertables{b}.compressedData("dense", wideRows)
	case sparse:
		return hypertables{b}.compressedData("sparse", packedRows)
	case planning:
		if !b.wide {
			if err := fill("wide", wideTable, fmt.Sprintf(wideRows, 1000, 1)); err != nil {
				return err
			}
		}
		// Chunks without indexes, of one row, a few hundred in a transaction: the
		// default lock table holds no more.
		if err := b.src.exec("drop table if exists many; " + table("many", tinyTable, "")); err != nil {
			return err
		}
		for i := 0; i < b.chunks; i += 200 {
			if err := b.src.exec(fmt.Sprintf("insert into many "+
				"select timestamptz '2000-01-01' + i * interval '1 day', 1, 1 from generate_series(%d, %d) i", i,
				min(i+200, b.chunks)-1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunks are those of a hypertable, the oldest first.
func (s *server) chunks(name string) ([]string, error) {
	return s.strings(`select format('%I.%I', chunk_schema, chunk_name) from timescaledb_information.chunks
        where hypertable_name = '` + name + `' order by range_start`)
}

// one puts a row into every chunk of the target, so that the chunks are there.
func one(name string) string {
	switch name {
	case "parts":
		return "insert into parts (time, device_id) select timestamptz '2024-01-01' + i * interval '1 day', -1 " +
			"from generate_series(0, 7) i"
	case "tiny":
		return "insert into tiny (time, device_id) select timestamptz '2020-01-01' + i * interval '1 day', -1 " +
			"from generate_series(0, 999) i"
	}
	return "insert into " + name + " (time, device_id) values ('2024-01-01', -1)"
}

// contests are all of them, in the order of the report.
func (b *bench) contests() []*contest {
	h, p, f := hypertables{b}, plainTables{b}, csvSources{b}
	return []*contest{h.withIndexes(), h.withoutIndex(), h.severalChunks(), h.tinyChunks(), h.compressed(),
		h.compressedChunks(dense, "dense"), h.compressedChunks(sparse, "sparse"), h.values(),
		h.manyChunks(), p.plainSource(), p.withoutAnyIndex(), f.csvFiles(), f.csvCommands()}
}

// watched runs lanes beside the view as bf-backfill shows it, and notes the share of
// the view's connection in the target's CPU time.
func (h hypertables) watched(n int) func(m *meter) error {
	return func(m *meter) error {
		view := exec.Command("bf-chunks", "--target", h.dst.uri, "--watch", "--messages", "--every", "1")
		view.Env = m.env
		before := h.dst.sum()
		if err := view.Start(); err != nil {
			return err
		}
		err := h.lanes(n)(m)
		pids, _ := h.dst.strings("select pid::text from pg_stat_activity where application_name = 'bf-chunks --watch'")
		all := h.dst.sum() - before
		for _, pid := range pids {
			if n, _ := strconv.Atoi(pid); h.dst.postmaster != 0 && all > 0 {
				h.view = append(h.view, float64(stat(n).cpu)/float64(all))
			}
		}
		_ = view.Process.Signal(syscall.SIGTERM)
		return errors.Join(err, view.Wait())
	}
}

func verified(s sample) float64 { return max(s.source, s.target).Seconds() }

// hypertables has the contests between hypertables of the same chunks.
type hypertables struct{ *bench }

// oneChunk copies a chunk that is there, and one that is not.
func (h hypertables) oneChunk(name, indexes string) *contest {
	return &contest{name: name, variants: []*variant{
		{peer: true, name: "psql | psql, ready chunk", prepare: h.prepare("wide", wideTable, indexes, one("wide")),
			run: func(m *meter) error {
				return h.psql(m, "wide", 1)
			}},
		{peer: true, name: "analyze of that chunk", run: func(m *meter) error {
			chunks, err := h.dst.chunks("wide")
			if err != nil || len(chunks) != 1 {
				return fmt.Errorf("%d chunks: %w", len(chunks), err)
			}
			return m.pipe("", []string{"psql", "-Xqd", h.dst.uri, "-c", "analyze " + chunks[0]})
		}},
		{name: "bf, ready chunk", prepare: h.prepare("wide", wideTable, indexes, one("wide")), run: h.single("wide")},
		{name: "bf, chunk not there", prepare: h.prepare("wide", wideTable, indexes, ""), run: func(m *meter) error {
			err := h.single("wide")(m)
			h.attaches = h.attached()
			return err
		}},
	}}
}

func (h hypertables) withIndexes() *contest {
	c := h.oneChunk(indexed, threeIndexes)
	c.variants = append(c.variants, &variant{name: "bf-verify", run: h.verify})
	c.judge = func(c *contest) {
		psql, ready, attach, verify := c.variants[0], c.variants[2], c.variants[3], c.variants[4]
		h.check("one lane, ready chunk, 3 indexes, without analyze: wall against psql | psql",
			(ready.median(wall)-c.variants[1].median(wall))/max(psql.median(wall), 1e-9), 1.03)
		h.check("one lane, ready chunk, 3 indexes: client CPU", over(ready, psql, client), 0.8)
		if h.attaches {
			h.check("one lane, load then index, 3 indexes: wall against psql | psql into the ready chunk",
				over(attach, psql, wall), 0.65)
			h.check("one lane, load then index, 3 indexes: target CPU", over(attach, psql, target), 0.80)
		} else {
			h.check("one lane, load then index, 3 indexes: this TimescaleDB takes no such chunk", 0, 0.65)
		}
		if from, err := h.src.chunks("wide"); err == nil && len(from) > 0 {
			psql.pipe = wire("", "psql", "-Xqd", h.src.uri, "-c",
				"copy (select * from "+from[0]+") to stdout (format binary)")
			ready.pipe = wire(h.records["wide"], h.dump()...)
		}
		if psql.pipe > 0 {
			h.check("client CPU of dump and load, seconds per GB of binary COPY",
				ready.median(client)/(float64(psql.pipe)/1e9), 2.0)
		}
		h.check("verify, CPU of the slower side against the wall time of psql | psql",
			verify.median(verified)/max(psql.median(wall), 1e-9), 0.20)
		h.locks()
		h.check("peak memory of dump and load, MiB: ready chunk", ready.median(memory), 64)
		h.check("peak memory of dump and load, MiB: chunk not there", attach.median(memory), 64)
	}
	return c
}

func (h hypertables) withoutIndex() *contest {
	c := h.oneChunk(bare, "")
	c.judge = func(c *contest) {
		// The server analyzes what psql has copied later, by itself.
		psql, analyze, ready := c.variants[0], c.variants[1], c.variants[2]
		without := func(f func(sample) float64) float64 {
			return (ready.median(f) - analyze.median(f)) / max(psql.median(f), 1e-9)
		}
		h.check("one lane, ready chunk, no index, without analyze: wall against psql | psql", without(wall), 1.05)
		h.check("one lane, ready chunk, no index, without analyze: target CPU", without(target), 1.05)
	}
	return c
}

func (h hypertables) severalChunks() *contest {
	c := &contest{name: several, variants: []*variant{
		{peer: true, name: "psql | psql, ready chunks, one after the other",
			prepare: h.prepare("parts", wideTable, threeIndexes, one("parts")), run: func(m *meter) error {
				return h.psql(m, "parts", 8)
			}},
		{name: "bf, 1 lane", prepare: h.prepare("parts", wideTable, threeIndexes, ""), run: h.lanes(1)},
		{name: "bf, 2 lanes", prepare: h.prepare("parts", wideTable, threeIndexes, ""), run: h.lanes(2)},
		{name: "bf, 2 lanes, ready chunks", prepare: h.prepare("parts", wideTable, threeIndexes, one("parts")),
			run: h.lanes(2)},
		{name: "bf, 4 lanes", prepare: h.prepare("parts", wideTable, threeIndexes, ""), run: h.lanes(4)},
		{name: "bf-verify, 2", run: h.verifies(2)},
	}}
	h.against(c, 2, func() error { return h.remake("parts", wideTable, threeIndexes, "") }, "parts")
	c.judge = func(c *contest) {
		h.check("two lanes, 3 indexes: wall against serial psql | psql", over(c.variants[2], c.variants[0], wall), 0.60)
		h.check("two lanes: wall against the CPU time of all divided by the cores",
			c.variants[2].median(func(s sample) float64 {
				return s.wall.Seconds() / ((s.source + s.target + s.client).Seconds() / float64(runtime.NumCPU()))
			}), 1.10)
		h.beside(c, "two lanes, 3 indexes: ", 2, 6, 1)
		h.beside(c, "uncompressed chunks: ", 5, 7, 0.7)
	}
	return c
}

func (h hypertables) tinyChunks() *contest {
	c := &contest{name: tiny, variants: []*variant{
		{name: "bf-dump | bf-load for each chunk", scale: 25, prepare: h.prepare("tiny", tinyTable, twoIndexes, ""),
			run: func(m *meter) error {
				for _, r := range strings.SplitAfter(h.records["tiny"], "\n")[:40] {
					if err := m.pipe(r, h.dump(), h.load()); err != nil {
						return err
					}
				}
				return nil
			}},
		{peer: true, name: "psql | psql for each, ready chunks", scale: 25,
			prepare: h.prepare("tiny", tinyTable, twoIndexes, one("tiny")), run: func(m *meter) error {
				return h.psql(m, "tiny", 40)
			}},
		{name: "bf, 1 lane", prepare: h.prepare("tiny", tinyTable, twoIndexes, ""), run: h.single("tiny")},
		{name: "bf, 1 lane that claims", prepare: h.prepare("tiny", tinyTable, twoIndexes, ""), run: h.lanes(1)},
		{name: "bf, 2 lanes", prepare: h.prepare("tiny", tinyTable, twoIndexes, ""), run: h.lanes(2)},
		{name: "bf, 2 lanes beside the view", prepare: h.prepare("tiny", tinyTable, twoIndexes, ""), run: h.watched(2)},
		{name: "bf-verify, 2", run: h.verifies(2)},
	}}
	h.against(c, 2, func() error { return h.remake("tiny", tinyTable, twoIndexes, "") }, "tiny")
	// One at a time makes a chunk of a hypertable, and the server does it: no lanes take less.
	c.variants = append(c.variants, &variant{peer: true, name: "an insert that makes the chunks",
		prepare: h.prepare("tiny", tinyTable, twoIndexes, ""),
		run: func(m *meter) error {
			return m.pipe("", []string{"psql", "-Xqd", h.dst.uri, "-c", one("tiny")})
		}})
	c.judge = func(c *contest) {
		if slices.Sort(h.view); len(h.view) > 0 {
			h.check("1000 tiny chunks, two lanes: the view's share of the target's CPU time",
				h.view[len(h.view)/2], 0.01)
		}
		h.check("1000 tiny chunks, one lane: wall against a pair of processes for each",
			over(c.variants[2], c.variants[0], wall), 0.25)
		h.check("2000 tiny chunks, two lanes, seconds", 2*c.variants[4].median(wall), 5)
		h.beside(c, "1000 tiny chunks: ", 4, 7, 1)
	}
	return c
}

func (h hypertables) compressed() *contest {
	return &contest{name: packed, variants: []*variant{
		{peer: true, name: "psql | psql decompressed, then compress",
			prepare: h.prepare("packed", wideTable, threeIndexes, compress+one("packed")), run: func(m *meter) error {
				if err := h.psql(m, "packed", 1); err != nil {
					return err
				}
				return m.pipe("", []string{"psql", "-Xqd", h.dst.uri, "-c",
					"select compress_chunk(c) from show_chunks('packed') c"})
			}},
		{peer: true, name: "count, min, max, sum of all columns", run: func(m *meter) error {
			return m.pipe("", []string{"psql", "-Xqd", h.src.uri, "-o", "/dev/null", "-c", aggregates})
		}},
		{name: "bf", prepare: h.prepare("packed", wideTable, threeIndexes, compress), run: h.single("packed")},
		{name: "bf-verify", run: h.verify},
	}, judge: func(c *contest) {
		c.variants[2].pipe = wire(h.records["packed"], h.dump()...)
		h.check("compressed chunk: wall against decompress, copy, compress",
			over(c.variants[2], c.variants[0], wall), 0.10)
		if q := c.variants[1].median(source); q > 0 {
			h.check("verify of a compressed chunk: CPU of the slower side against count, min, max, sum",
				c.variants[3].median(verified)/q, 0.25)
		}
	}}
}

func (h hypertables) values() *contest {
	return &contest{name: huge, variants: []*variant{
		{peer: true, name: "psql | psql", prepare: h.prepare("huge", "(time timestamptz not null, v text)", "",
			"insert into huge values ('2024-01-01', '')"), run: func(m *meter) error {
			return h.psql(m, "huge", 1)
		}},
		{name: "bf", prepare: h.prepare("huge", "(time timestamptz not null, v text)", "", ""), run: h.single("huge")},
	}, judge: func(c *contest) {
		h.check("peak memory of dump and load, MiB: values of 100 MB", c.variants[1].median(memory), 64)
	}}
}

func (h hypertables) manyChunks() *contest {
	return &contest{name: planning, variants: []*variant{
		{name: "bf-stage of one chunk", prepare: h.unstaged, run: func(m *meter) error {
			return m.pipe("", h.planner("wide"))
		}},
		{name: fmt.Sprintf("bf-stage of %d chunks", h.chunks), prepare: h.unstaged, run: func(m *meter) error {
			return m.pipe("", h.planner("many"))
		}},
		{name: "staged again", run: func(m *meter) error { return m.pipe("", h.planner("many")) }},
		{name: "list", run: func(m *meter) error {
			return m.pipe("", []string{"bf-chunks", "--target", h.dst.uri}, []string{"wc", "-l"})
		}},
		{name: "the first fifth, 1 lane, then killed", run: func(m *meter) error { return h.killed(m, h.chunks/5) }},
		{name: "resumed and killed again", run: func(m *meter) error { return h.killed(m, h.chunks*4/5) }},
		{name: "resumed, the last fifth", run: h.lanes(1)},
	}, judge: func(c *contest) {
		h.check(fmt.Sprintf("staging %d chunks, seconds beyond connecting", h.chunks),
			c.variants[1].median(wall)-c.variants[0].median(wall), float64(h.chunks)/5000)
		h.check("killed and resumed: seconds until the next chunk is done", h.resumed, 1)
		h.check(fmt.Sprintf("target CPU, the last fifth of %d chunks against the first", h.chunks),
			over(c.variants[6], c.variants[4], target), 1.5)
	}}
}

const (
	compress = `alter table packed set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id',
        timescaledb.compress_orderby = 'time');`
	aggregates = `select count(*), min(time), max(time), min(device_id), max(device_id), min(c1), max(c1), sum(c1),
        min(c2), max(c2), sum(c2), min(c3), max(c3), sum(c3),
        min(c4), max(c4), sum(c4), min(c5), max(c5), sum(c5), min(c6), max(c6), sum(c6), min(c7), max(c7), sum(c7),
        min(c8), max(c8), sum(c8),
        min(c9), max(c9), sum(c9), min(c10), max(c10), sum(c10), min(tags), max(tags) from packed`
)

// unstaged leaves the target without tasks, but with the hypertables.
func (h hypertables) unstaged() error {
	return h.dst.exec("drop schema if exists __backfill cascade; drop table if exists many; " +
		"drop table if exists wide;" + table("many", tinyTable, "") + table("wide", wideTable, ""))
}

// killed runs a lane and kills all of it when so many tasks are done.
func (h hypertables) killed(m *meter, done int) error {
	count := func() (n int, err error) {
		s, err := h.dst.strings("select count(worked)::text from __backfill.task")
		if err == nil {
			n, err = strconv.Atoi(s[0])
		}
		return n, err
	}
	before, err := count()
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", `bf-chunks --target "$TARGET" --claim | bf-dump -q --source "$SOURCE" | bf-load `+
		`-q --target "$TARGET" >/dev/null`)
	cmd.Env, cmd.SysProcAttr = m.env, &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for n := before; n < done && err == nil; n, err = count() {
		if n == before {
			h.resumed = time.Since(start).Seconds()
		}
		select {
		case err = <-ended:
			return fmt.Errorf("the lane ended after %d chunks: %w", n, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-ended // it says that it was killed
	return err
}

// locks looks how long a copy holds a lock on the hypertable that makes others
// wait who need a new chunk, and whether it does so during a COPY.
func (h hypertables) locks() {
	if h.fresh("wide", wideTable, threeIndexes, "") != nil {
		return
	}
	done := make(chan error, 1)
	go func() {
		m := &meter{env: h.env}
		done <- m.pipe(h.records["wide"], h.dump(), h.load())
	}()
	var held time.Duration
	last, across, looks := time.Now(), 0, 0
	for {
		select {
		case err := <-done:
			if err == nil {
				h.check(fmt.Sprintf("lock on the hypertable, seconds per million rows (%d looks)", looks),
					max(held.Seconds(), 0.0001)/(float64(h.rows)/1e6), 0.1)
				h.check("lock on the hypertable during a COPY, times seen (0.001 is never)",
					float64(across)+0.001, 0.001)
			}
			return
		default:
		}
		seen, err := h.dst.strings(`select exists (select from pg_stat_progress_copy)::text from pg_locks
            where relation = 'wide'::regclass and granted
            and mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
            'AccessExclusiveLock') limit 1`)
		now := time.Now()
		if err == nil {
			looks++
		}
		if len(seen) > 0 {
			held += now.Sub(last)
			if seen[0] == "true" {
				across++
			}
		}
		last = now
	}
}
