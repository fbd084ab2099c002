package verify

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// compressedSide is a side whose one chunk is compressed, and that may be
// written to.
func compressedSide(t testing.TB, d *testdb.DB, table string) (*side, *compressedRelation) {
	t.Helper()
	db, err := tsdb.Open(t.Context(), pg.Source, d.ConnString, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	s := &side{db: db}
	if s.h, err = db.HypertableFor(t.Context(), task.Name{Schema: "public", Name: table}, nil); err != nil {
		t.Fatal(err)
	}
	chunks, err := s.h.ChunksIn(t.Context(), db, task.Range{Column: "time", From: "0", Until: "1000"})
	if err != nil || len(chunks) != 1 {
		t.Fatalf("chunks %v: %v", chunks, err)
	}
	s.compressedChunk = chunks[0]
	s.rows = pg.Ident(chunks[0].Name.Schema, chunks[0].Name.Name)
	rel, err := s.compressedRelation(t.Context())
	if err != nil || rel == nil {
		t.Fatalf("its batches say nothing: %v", err)
	}
	return s, rel
}

// TestBatchesByProperty: whatever is exchanged between the batches of a
// compressed chunk, if the rows that users see have changed, so has the hash of
// the batches.
func TestBatchesByProperty(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		seed := rand.Uint64()
		t.Logf("random seed %d", seed)
		r := rand.New(rand.NewPCG(0, seed))
		d := testdb.New(t, v.Source, "source")
		// Batches of equally many values, some without any, some that are the same.
		d.Exec(t, `create table b (time int not null, dev int, kind text, a float8, n numeric, x text, j jsonb);
            select create_hypertable('b', 'time', chunk_time_interval => 1000);
            alter table b set (timescaledb.compress, timescaledb.compress_segmentby = 'dev, kind',
                               timescaledb.compress_orderby = 'time');
            insert into b select i, dev, 'k' || dev % 2, sqrt(i * (dev % 5)),
                                 case when dev % 4 > 0 then i / 2.0 end, 'x' || i % 3,
                                 case when dev % 3 > 0 then to_jsonb(dev) end
                          from generate_series(0, 4) i, generate_series(0, 19) dev;
            select compress_chunk(c) from show_chunks('b') c`)
		s, rel := compressedSide(t, d, "b")
		exec := func(sql string) {
			t.Helper()
			if _, err := s.db.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		state := func() (hash, rows string) {
			t.Helper()
			sum, err := s.hashBatches(t.Context(), rel)
			if err != nil {
				t.Fatal(err)
			}
			all := "select md5(string_agg(every::text, ' ' order by every::text)) from " + s.rows + " every"
			if err := s.db.QueryRow(t.Context(), all).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			return sum.Hash, rows
		}
		var values []string // columns that hold values of rows
		for _, c := range rel.columns {
			if !strings.HasPrefix(c.Name, "_ts_meta") {
				values = append(values, pg.Ident(c.Name))
			}
		}
		some := func() []string {
			r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			return slices.Clone(values[:1+r.IntN(len(values)-1)])
		}
		// move gives each batch the columns of another one; batches are told
		// apart by their number.
		move := func(columns []string, from func(n int) int) string {
			var set, pairs []string
			for _, c := range columns {
				set = append(set, c+" = o."+c)
			}
			for n := range 20 {
				pairs = append(pairs, fmt.Sprintf("(%d, %d)", n, from(n)))
			}
			return fmt.Sprintf(`with b as materialized (
                    select row_number() over (order by ctid) - 1 as batch, ctid as id, * from %[1]s)
                update %[1]s t set %[2]s
                from (values %[3]s) m(here, there), b me, b o
                where t.ctid = me.id and me.batch = here and o.batch = there and here <> there`,
				rel.Quoted, strings.Join(set, ", "), strings.Join(pairs, ", "))
		}
		kinds := map[string]func() string{
			"physical order": func() string { return "update " + rel.Quoted + " set dev = dev" },
			"columns of two batches exchanged": func() string {
				i, j := r.IntN(20), r.IntN(20)
				return move(some(), func(n int) int {
					switch n {
					case i:
						return j
					case j:
						return i
					}
					return n
				})
			},
			"columns rotated by a batch": func() string {
				return move(some(), func(n int) int { return (n + 1) % 20 })
			},
			"columns of batches shuffled": func() string {
				p := r.Perm(20)
				return move(some(), func(n int) int { return p[n] })
			},
			"a batch doubled, one dropped": func() string {
				i, j := r.IntN(20), r.IntN(20)
				return move(values, func(n int) int { return swap(n == i, j, n) })
			},
		}
		hash, rows := state()
		changed := 0
		for what, statement := range kinds {
			for range 40 {
				sql := statement()
				exec("begin read write; " + sql)
				h, x := state()
				exec("rollback")
				if x != rows {
					changed++
				}
				if (what == "physical order" || x != rows) && (h != hash) != (x != rows) {
					t.Errorf("%s: rows differ: %v, hashes differ: %v\n%s", what, x != rows, h != hash, sql)
				}
			}
		}
		if changed < 100 {
			t.Errorf("only %d cases changed the rows", changed)
		}
	})
}

func swap(is bool, a, b int) int {
	if is {
		return a
	}
	return b
}
