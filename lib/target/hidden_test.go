package target_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
	"bf/lib/verify"
)

// hiding is a case of TestHidden: how rows got beside the batches of a chunk without
// its being marked as partially compressed, on either side.
type hiding struct {
	segments, unique, referenced bool
	from                         []string // steps on the source, each a key of hidingSteps
	to                           []string // on the target
	until                        string
	owner                        bool // loads as an owner that may not create relations in TimescaleDB's schema
}

func (h hiding) String() string {
	return fmt.Sprintf("segments=%t unique=%t referenced=%t owner=%t from=%v to=%v until=%s", h.segments, h.unique,
		h.referenced, h.owner, h.from, h.to, h.until)
}

const hidingT = "2024-01-04 04:00:30+00" // inside of the chunk, and of a batch

// hidingSteps are SQL where {c} is the chunk and {fn} the schema of functions. Rows
// of the source have i >= 0, those of the target i < 0.
var hidingSteps = map[string]string{
	"rows": "insert into m select '2024-01-04'::timestamptz + n * interval '1 minute', n % 3, {sign}n " +
		"from generate_series(1, 600) n",
	"few rows": "insert into m select '2024-01-04'::timestamptz + n * interval '90 seconds', n % 3, {sign}n " +
		"from generate_series(1, 300) n",
	"compress": compress,
	"through": "insert into m select '2024-01-04 00:00:45'::timestamptz + n * interval '7 minutes', 5, " +
		"{sign}(1000 + n) from generate_series(1, 60) n",
	"straight": "insert into {c} select '2024-01-04 00:00:15'::timestamptz + n * interval '11 minutes', n % 4, " +
		"{sign}(2000 + n) from generate_series(1, 40) n",
	"twins":  "insert into {c} select ts, dev, i from m where abs(i) < 1000 and abs(i) % 50 = 7",
	"frozen": "select {fn}.freeze_chunk('{c}'::regclass)",
	"none":   "delete from m",
	// As an update of the extension leaves a chunk of 2.22.
	"unmarked": "update _timescaledb_catalog.chunk set status = status & ~8",
}

// TestHidden copies chunks with rows that no query shows, over such chunks: what
// queries show on the source is what they show on the target, also after something
// has marked the chunk as partially compressed, and what was left is told.
func TestHidden(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		newer := tsdb.DeletesBatches(p.Source.Version) // it marks the chunk, and looks for twins
		var cases []hiding
		add := func(from, to, until string) {
			split := func(s string) []string { return strings.Split(s, ",") }
			cases = append(cases, hiding{segments: true, unique: true, from: split(from), to: split(to), until: until})
		}
		hide := "rows,compress,straight,unmarked"
		add(hide, "", "2025-01-01")
		add("rows,compress,straight", "", "2025-01-01") // as this version leaves it
		add(hide, "few rows,compress,straight,unmarked", "2025-01-01")
		add(hide, "few rows,compress,straight,unmarked", hidingT)
		add("rows", "few rows,compress,straight,unmarked", hidingT)
		add("rows,compress,through,straight", "few rows,compress,straight,unmarked,frozen", "2025-01-01")
		add(hide+",frozen", "few rows,none,compress,straight,unmarked", hidingT)
		referenced := cases[3]
		referenced.referenced = true
		cases = append(cases, referenced)
		rnd := rand.New(rand.NewPCG(13, 5))
		pick := func(all ...string) string { return all[rnd.IntN(len(all))] }
		twins := ",twins"
		if newer {
			twins = ""
		}
		n := 2
		if thorough(t, p) {
			n = 8
		}
		for range n {
			from := pick(",straight", ",compress,through,straight", ",compress,straight", ",compress,straight"+twins,
				",compress,through,straight,unmarked")
			add(pick("rows", "few rows")+from+pick("", ",unmarked")+pick("", ",frozen"),
				pick("", "few rows,compress,straight,unmarked", "few rows,compress,straight,unmarked",
					"rows,none,compress,straight,unmarked", "few rows,compress,through,straight", "few rows,straight"),
				pick("2025-01-01", hidingT))
			c := &cases[len(cases)-1]
			c.segments, c.unique, c.owner = rnd.IntN(2) == 0, rnd.IntN(3) > 0, rnd.IntN(3) == 0
		}
		for _, c := range cases {
			t.Run(strings.NewReplacer(" ", "_", "[", "", "]", "").Replace(c.String()), func(t *testing.T) {
				c.run(t, p)
			})
		}
	})
}

func (h hiding) run(t *testing.T, p testdb.Pair) {
	s := both(t, p)
	sql := "create table m(ts timestamptz not null, dev int not null, i bigint); " +
		"select create_hypertable('m', 'ts', chunk_time_interval => interval '7 days', " +
		"create_default_indexes => false);"
	if h.unique {
		sql += "alter table m add unique (ts, dev);"
	}
	segments := ""
	if h.segments {
		segments = "dev"
	}
	s.exec(t, sql+fmt.Sprintf("alter table m "+
		"set (timescaledb.compress, timescaledb.compress_segmentby = '%s', timescaledb.compress_orderby = 'ts');",
		segments))
	steps := func(db *testdb.DB, steps []string, sign string) {
		for _, step := range steps {
			if step == "" {
				continue
			}
			chunk := db.Rows(t, "select coalesce((select c::text from show_chunks('m') c), '')")[0][0]
			db.Exec(t, strings.NewReplacer("{c}", chunk, "{fn}", functions(db), "{sign}",
				sign).Replace(hidingSteps[step]))
		}
	}
	steps(s.src, h.from, "")
	steps(s.dst, h.to, "-")
	if h.referenced {
		if !tsdb.AtLeast(p.Source.Version, "2.17") {
			t.Skip("no table may reference a hypertable")
		}
		s.dst.Exec(t, "create table r (dev int, ts timestamptz, foreign key (ts, dev) references m (ts, dev))")
	}
	if h.owner {
		s.as = s.dst.Role(t, "bf_owner")
		s.dst.Exec(t, "alter table m owner to bf_owner; "+
			"do $$ begin execute 'grant create on database '||current_database()||' to bf_owner'; end $$")
	}
	in := " where ts < '" + h.until + "'"
	const rows = "select ts, dev, i from m"
	want := append(s.src.Rows(t, rows+in), s.dst.Rows(t, rows+" where ts >= '"+h.until+"'")...)
	missing, outside := hidden(t, s.src, in), hidden(t, s.dst, " where ts >= '"+h.until+"'")

	plan := s.stage(t, stage.Options{Until: h.until})
	total := hidden(t, s.src, "")
	if said := strings.Join(plan.Notes, "\n"); strings.Contains(said,
		fmt.Sprintf("%d in _hyper_", total)) != (total > 0) {
		t.Errorf("staging said %q of %d hidden rows", said, total)
	}
	if h.referenced && tsdb.DeletesBatches(p.Source.Version) {
		// Nothing deletes the hidden rows alone, and to merge around them fails.
		if _, errs := s.lane(t, nil); errs[0] == nil || !strings.Contains(errs[0].Error(), "shown by no query") {
			t.Errorf("not refused: %v", errs[0])
		}
		return
	}
	r := one(t, s.copy(t))
	if int(r.Hidden) != missing || strings.Contains(r.Message, fmt.Sprintf("not copied: %d rows", missing)) !=
		(missing > 0) {
		t.Errorf("%d hidden rows; the result says %d, %q", missing, r.Hidden, r.Message)
	}
	if missing > 0 {
		s.wantVerdict(t, fmt.Sprintf("not compared: %d rows", total))
	} else {
		s.wantVerdict(t, "")
	}
	if outside == 0 {
		same(t, "after the copy", want, s.dst.Rows(t, rows))
	}
	// Whatever the application does next shows nothing else.
	if frozen := slices.Contains(h.from, "frozen") || slices.Contains(h.to, "frozen"); frozen {
		s.dst.Exec(t, "select "+functions(s.dst)+".unfreeze_chunk(c) from show_chunks('m') c")
	}
	s.dst.Exec(t, "insert into m values ('2024-01-04 23:00+00', 1, 77)")
	want = append(want, []string{"2024-01-04 23:00:00+00", "1", "77"})
	now := s.dst.Rows(t, rows)
	if outside > 0 && len(now) == len(want)+outside {
		if !strings.Contains(r.Message, fmt.Sprintf("%d rows outside of the range", outside)) {
			t.Errorf("%d rows outside of the range came up, the result says %q", outside, r.Message)
		}
		return // and may be twins
	}
	same(t, "after an insert", want, now)
	s.dst.Exec(t, "select decompress_chunk(c, true) from show_chunks('m') c")
	same(t, "decompressed", want, s.dst.Rows(t, rows))
}

// hidden counts the rows of the only chunk, if it is there, that no query shows.
func hidden(t *testing.T, db *testdb.DB, where string) (n int) {
	t.Helper()
	chunk := db.Rows(t, "select coalesce((select c::text from show_chunks('m') c), '')")[0][0]
	if chunk == "" || strings.Trim(state(t, db), "15") != "" {
		return 0
	}
	db.Query1(t, &n, "select count(*) from only "+chunk+where)
	return n
}

func functions(db *testdb.DB) string {
	if strings.HasPrefix(db.Install.Version, "2.11.") {
		return "_timescaledb_internal"
	}
	return "_timescaledb_functions"
}

// wantVerdict verifies the only task: equal, and saying so.
func (s *sides) wantVerdict(t *testing.T, says string) {
	t.Helper()
	ctx := context.Background()
	for _, m := range []verify.Method{verify.ByRows, verify.BySummary} {
		pair, err := verify.Open(ctx, s.src.ConnString, s.dst.ConnString, m, pg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var tk *task.Task
		if err := queue.Each(ctx, pair.Target.Conn, queue.Selection{State: queue.All}, func(e *queue.Entry) error {
			tk = &e.Task
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r, err := pair.Verify(ctx, tk)
		if err != nil || r.Status != task.Verified || !strings.Contains(r.Message, says) {
			t.Errorf("%s: %s, %q, %v; want %q", m, r.Status, r.Message, err, says)
		}
		pair.Close()
	}
}

func same(t *testing.T, when string, want, have [][]string) {
	t.Helper()
	key := func(a, b []string) int { return slices.Compare(a, b) }
	want, have = slices.SortedFunc(slices.Values(want), key), slices.SortedFunc(slices.Values(have), key)
	if !reflect.DeepEqual(want, have) {
		t.Errorf("%s: %d rows, want %d", when, len(have), len(want))
	}
}

// TestHiddenAggregate is TestHidden for the chunk behind a continuous aggregate, and
// for one of the hypercore access method, which shows all rows.
func TestHiddenAggregate(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		t.Run("aggregate", func(t *testing.T) {
			s := both(t, p)
			s.exec(t, `create table raw(ts timestamptz not null, v int); select create_hypertable('raw', 'ts');
                create materialized view m with (timescaledb.continuous, timescaledb.materialized_only = true) as
                  select time_bucket('1 hour', ts) as ts, sum(v) as v from raw group by 1 with no data;
                alter materialized view m set (timescaledb.compress = true);`)
			s.src.Exec(t, "insert into raw select '2024-01-04'::timestamptz + n * interval '10 minutes', n "+
				"from generate_series(1, 100) n")
			s.src.Exec(t, "call refresh_continuous_aggregate('m', null, null)")
			s.src.Exec(t, compress)
			chunk := s.src.Rows(t, "select show_chunks('m')")[0][0]
			s.src.Exec(t, "insert into "+chunk+
				" (ts, v) values ('2024-01-04 00:00+00', -1), ('2024-01-04 20:00+00', -2); "+
				"update _timescaledb_catalog.chunk set status = status & ~8")
			want := s.src.Rows(t, "select * from m")
			plan := s.stage(t, stage.Options{Until: "2025-01-01", Choice: tsdb.Choice{Filter: "^public.m$"}})
			if said := strings.Join(plan.Notes, "\n"); !strings.Contains(said, "public.m has rows") {
				t.Errorf("staging said %q", said)
			}
			r := one(t, s.copy(t))
			if r.Hidden != 2 || r.Way != wayRaw {
				t.Errorf("%d hidden rows, way %q because %q", r.Hidden, r.Way, r.WhyNotRaw)
			}
			same(t, "after the copy", want, s.dst.Rows(t, "select * from m"))
			s.wantVerdict(t, "not compared: 2 rows")
		})
		t.Run("hypercore", func(t *testing.T) {
			s := both(t, p)
			s.exec(t, "create table m(ts timestamptz not null, v int); select create_hypertable('m', 'ts'); "+
				"alter table m set (timescaledb.compress)")
			var has bool
			s.src.Query1(t, &has, "select exists (select from pg_am where amname = 'hypercore')")
			if !has {
				t.Skip("this version has no hypercore access method")
			}
			s.src.Exec(t, "insert into m select '2024-01-04'::timestamptz + n * interval '10 minutes', n "+
				"from generate_series(1, 100) n;"+compress)
			chunk := s.src.Rows(t, "select show_chunks('m')")[0][0]
			s.src.Exec(t, "alter table "+chunk+" set access method hypercore")
			s.src.Exec(t, "insert into "+chunk+" values ('2024-01-04 00:00:01+00', -1)")
			want := s.src.Rows(t, "select * from m")
			s.stage(t, stage.Options{Until: "2025-01-01"})
			if r := one(t, s.copy(t)); r.Hidden != 0 {
				t.Errorf("%d hidden rows", r.Hidden)
			}
			if len(want) != 101 {
				t.Errorf("%d rows on the source", len(want))
			}
			same(t, "after the copy", want, s.dst.Rows(t, "select * from m"))
			// Not verified: 2.19.3 on PostgreSQL 17 itself cannot hash the rows of such a chunk.
		})
	})
}
