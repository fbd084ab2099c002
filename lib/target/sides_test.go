package target_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/source"
	"bf/lib/stage"
	"bf/lib/stream"
	"bf/lib/target"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// sides are a source and a target that a test copies between.
type sides struct {
	src, dst *testdb.DB
	from, as string // connection strings of the roles that dump and load; "" for the superuser's
	force    bool
	pause    func() // called when all of the first part but its end has come
}

func both(t *testing.T, p testdb.Pair) *sides {
	t.Helper()
	return &sides{src: testdb.New(t, p.Source, "source"), dst: testdb.New(t, p.Target, "target")}
}

func (s *sides) exec(t *testing.T, sql string) {
	t.Helper()
	s.src.Exec(t, sql)
	s.dst.Exec(t, sql)
}

func open(t *testing.T, side pg.Side, conn string) *tsdb.DB {
	t.Helper()
	db, err := tsdb.Open(context.Background(), side, conn, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func (s *sides) target() string {
	if s.as != "" {
		return s.as
	}
	return s.dst.ConnString
}

// thorough reports whether a test tries everything on this version: on the
// newest and the oldest one. The others get a selection.
func thorough(t *testing.T, p testdb.Pair) bool {
	t.Helper()
	var full []testdb.Install
	for _, in := range testdb.Installs(t) {
		if in.Full {
			full = append(full, in)
		}
	}
	return p.Source == full[0] || p.Source == full[len(full)-1]
}

// newest is thorough on the newest version alone.
func newest(t *testing.T, p testdb.Pair) bool {
	t.Helper()
	return p.Source == testdb.Installs(t)[0]
}

// stage records the plan and returns it.
func (s *sides) stage(t *testing.T, o stage.Options) *stage.Plan {
	t.Helper()
	ctx := context.Background()
	src, dst := open(t, pg.Source, s.src.ConnString), open(t, pg.Target, s.target())
	plan, err := stage.Make(ctx, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Fit(ctx, dst, plan); err != nil {
		t.Fatal(err)
	}
	if err := queue.Create(ctx, dst.Conn); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Record(ctx, dst.Conn, plan.Tasks, false); err != nil {
		t.Fatal(err)
	}
	return plan
}

// copy moves all pending tasks as a lane does: a task that is refused as it is
// comes again by its rows, and has left nothing behind. It returns the last
// result of each.
func (s *sides) copy(t *testing.T) []*task.Result {
	t.Helper()
	var results []*task.Result
	const trace = `select (select string_agg(c::text, ',') from _timescaledb_catalog.chunk c), (select count(*)
        from pg_class where relnamespace = '_timescaledb_internal'::regnamespace)`
	for range 2 {
		before := s.dst.Rows(t, trace)
		rs, errs := s.lane(t, nil)
		if !slices.Contains(errs, nil) {
			// An application that writes in the meantime makes chunks.
			if after := s.dst.Rows(t, trace); s.pause == nil && !reflect.DeepEqual(before, after) {
				t.Errorf("refused (%v), and yet the target changed from %v to %v", errs, before, after)
			}
		}
		for i, r := range rs {
			if errs[i] != nil && !strings.Contains(errs[i].Error(), "cannot be taken as it is") {
				t.Fatal(errs[i])
			}
			if errs[i] == nil {
				results = append(results, r)
			}
		}
	}
	var pending int
	s.dst.Query1(t, &pending, "select count(*) from __backfill.task where worked is null")
	if pending > 0 {
		t.Fatalf("%d tasks still pending", pending)
	}
	return results
}

// lane dumps the tasks that are pending (all, with force) and loads them. edit
// may change a header on its way.
func (s *sides) lane(t *testing.T, edit func(*stream.Header)) (results []*task.Result, errs []error) {
	t.Helper()
	ctx := context.Background()
	src, dst := open(t, pg.Source, cmp.Or(s.from, s.src.ConnString)), open(t, pg.Target, s.target())
	defer src.Close()
	defer dst.Close()
	state := queue.Pending
	if s.force {
		state = queue.All
	}
	var tasks []*task.Task
	if err := queue.Each(ctx, dst.Conn, queue.Selection{State: state}, func(e *queue.Entry) error {
		tasks = append(tasks, &e.Task)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	defer out.Close()
	go func() {
		w := stream.NewWriter(in, stream.Compression{})
		d := source.New(src, w, "test")
		for _, tk := range tasks {
			if _, err := d.Dump(ctx, tk); errors.Is(err, source.ErrOutput) {
				return
			}
		}
		in.CloseWithError(w.Close(false))
	}()
	var from io.Reader = out
	if s.pause != nil {
		all, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		from = bytes.NewReader(all)
		if end := bytes.Index(all, []byte(`{"rows":`)) - 5; end > 0 { // the frame that ends the part
			from = io.MultiReader(bytes.NewReader(all[:end]), &pausing{s.pause}, bytes.NewReader(all[end:]))
		}
	}
	r := stream.NewReader(from)
	l := target.New(dst, s.force)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return results, errs
		}
		var abort *stream.AbortError
		if errors.As(err, &abort) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(h)
		}
		res, err := l.Load(ctx, r, h)
		results, errs = append(results, res), append(errs, err)
	}
}

// pausing is an empty reader that calls a function first.
type pausing struct{ f func() }

func (p *pausing) Read([]byte) (int, error) {
	p.f()
	return 0, io.EOF
}

// one is the only result.
func one(t *testing.T, rs []*task.Result) *task.Result {
	t.Helper()
	if len(rs) != 1 {
		t.Fatalf("%d results", len(rs))
	}
	return rs[0]
}

func wantWay(t *testing.T, r *task.Result, way string, why string) {
	t.Helper()
	if r.Way != way || !strings.Contains(r.WhyNotRaw, why) || (why == "") != (r.WhyNotRaw == "") {
		t.Errorf("way %q because %q; want %q because %q", r.Way, r.WhyNotRaw, way, why)
	}
}

// The table of most tests: segments, an order of two columns, types that are
// compressed by every algorithm, NULLs, batches without any value, an index
// that makes sparse indexes where the server has them.
const table = `
create table m(ts timestamptz not null, dev int, v float8, i bigint, t text collate "C", u uuid, b bool, j jsonb,
e date, a int[]);
select create_hypertable('m', 'ts', chunk_time_interval => interval '7 days');
create index on m (u);
create index on m (t, u);
create index on m (i);
`

const enable = `alter table m set (timescaledb.compress, timescaledb.compress_segmentby = 'dev',
    timescaledb.compress_orderby = 'ts desc, i');`

// rows of one chunk: [from, from+n) minutes after its start, four segments.
func fill(from, n int) string {
	return fmt.Sprintf(`insert into m select '2024-01-04'::timestamptz + i * interval '1 minute', i %% 4, i / 7.0, i,
        't' || i %% 10,
        ('00000000-0000-0000-0000-' || lpad((i %% 50)::text, 12, '0'))::uuid, case when i %% 4 <> 0 then i %% 3 = 0 end,
        case when i %% 5 <> 0 then jsonb_build_object('k', i) end, '2024-01-01'::date + i %% 20,
        case when i %% 4 <> 1 then array[i, null] end
      from generate_series(%d, %d) i;`, from, from+n-1)
}

const compress = `select compress_chunk(c) from show_chunks('m') c;`

// state is the status of the chunks of a hypertable, oldest first.
func state(t *testing.T, db *testdb.DB) string {
	t.Helper()
	fn := "_timescaledb_functions"
	if strings.HasPrefix(db.Install.Version, "2.11.") {
		fn = "_timescaledb_internal"
	}
	var s string
	db.Query1(t, &s, "select coalesce(string_agg("+fn+
		".chunk_status(c)::text, ',' order by c::text), '') from show_chunks('m') c")
	return s
}

// live makes the chunk work for its living on both sides.
func (s *sides) live(t *testing.T) {
	t.Helper()
	recompress := compress
	if slices.ContainsFunc([]*testdb.DB{s.src, s.dst}, func(d *testdb.DB) bool {
		return strings.HasPrefix(d.Install.Version, "2.11.")
	}) {
		// There compress_chunk refuses a partial chunk.
		recompress = `select decompress_chunk(c, true) from show_chunks('m') c;` + compress
	}
	for _, step := range []struct{ name, sql string }{
		{"insert", fill(100, 50) + "insert into m(ts, dev, i) " +
			"values ('2024-01-05 00:00+00', 9, -1), ('2024-01-05 00:00+00', null, -2);"},
		{"update", "update m set v = -v, t = 'x' where i between 150 and 170;"},
		{"delete", "delete from m where i between 500 and 510 or dev = 3 and ts < '2024-01-04 06:00+00';"},
		{"recompress", recompress},
		{"add column", "alter table m add column n int; alter table m add column d text default 'old';"},
		{"insert again", fill(700, 40) + "update m set n = 5 where i = 705;"},
		{"drop column", "alter table m drop column e;"},
		{"recompress again", recompress},
		{"decompress", "select decompress_chunk(c) from show_chunks('m') c;"},
		{"compress", compress},
	} {
		// 2.22.1 itself updates too few rows of a partial chunk when it finds
		// them by an index.
		s.exec(t, "set enable_indexscan = off; set enable_bitmapscan = off")
		s.exec(t, step.sql)
		s.compare(t, "after "+step.name, plans[0])
		if t.Failed() {
			return
		}
	}
}

func settings(t *testing.T, db *testdb.DB) any {
	t.Helper()
	if strings.HasPrefix(db.Install.Version, "2.11.") {
		return db.Rows(t, "select * from _timescaledb_catalog.hypertable_compression order by 1, 2")
	}
	return db.Rows(t, "select * from _timescaledb_catalog.compression_settings where relid = 'm'::regclass")
}

const (
	wayRaw          = "raw into a fresh compressed relation"
	wayExisting     = "raw into the existing compressed relation"
	wayCompress     = "rows into the chunk, then compressed"
	wayFresh        = "rows into a fresh compressed relation"
	wayRowsExisting = "rows into the existing compressed relation"
	wayRows         = "rows into the chunk"
	wayRoot         = "rows through the hypertable"
)
