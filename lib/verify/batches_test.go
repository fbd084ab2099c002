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

// shuffled is a compressed chunk of 20 batches, whose columns tests move between them.
type shuffled struct {
	*side
	t      *testing.T
	rnd    *rand.Rand
	rel    *compressedRelation
	values []string // columns that hold values of rows
}

// newShuffled has batches of equally many values, some without any, some that are the
// same.
func newShuffled(t *testing.T, v testdb.Pair) *shuffled {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("random seed %d", seed)
	d := testdb.New(t, v.Source, "source")
	d.Exec(t, `create table b (time int not null, dev int, kind text, a float8, n numeric, x text, j jsonb);
		select create_hypertable('b', 'time', chunk_time_interval => 1000);
		alter table b set (timescaledb.compress, timescaledb.compress_segmentby = 'dev, kind',
			timescaledb.compress_orderby = 'time');
		insert into b select i, dev, 'k' || dev % 2, sqrt(i * (dev % 5)),
			case when dev % 4 > 0 then i / 2.0 end, 'x' || i % 3,
			case when dev % 3 > 0 then to_jsonb(dev) end
		from generate_series(0, 4) i, generate_series(0, 19) dev;
		select compress_chunk(c) from show_chunks('b') c`)
	s := &shuffled{t: t, rnd: rand.New(rand.NewPCG(0, seed))}
	s.side, s.rel = compressedSide(t, d, "b")
	for _, c := range s.rel.columns {
		if !strings.HasPrefix(c.Name, "_ts_meta") {
			s.values = append(s.values, pg.Ident(c.Name))
		}
	}
	return s
}

func (s *shuffled) exec(sql string) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// state is the hash of the batches, and one of the rows that users see.
func (s *shuffled) state() (hash, rows string) {
	s.t.Helper()
	sum, err := s.hashBatches(s.t.Context(), s.rel)
	if err != nil {
		s.t.Fatal(err)
	}
	all := "select md5(string_agg(every::text, ' ' order by every::text)) from " + s.rows + " every"
	if err := s.db.QueryRow(s.t.Context(), all).Scan(&rows); err != nil {
		s.t.Fatal(err)
	}
	return sum.Hash, rows
}

// some are columns with values, not all of them.
func (s *shuffled) some() []string {
	v := s.values
	s.rnd.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
	return slices.Clone(v[:1+s.rnd.IntN(len(v)-1)])
}

// move gives each batch the columns of another one; batches are told apart by their
// number.
func (s *shuffled) move(columns []string, from func(n int) int) string {
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
		s.rel.Quoted, strings.Join(set, ", "), strings.Join(pairs, ", "))
}

// moves are statements that move values between batches, each time others.
var moves = map[string]func(s *shuffled) string{
	"physical order": func(s *shuffled) string { return "update " + s.rel.Quoted + " set dev = dev" },
	"columns of two batches exchanged": func(s *shuffled) string {
		i, j := s.rnd.IntN(20), s.rnd.IntN(20)
		return s.move(s.some(), func(n int) int {
			switch n {
			case i:
				return j
			case j:
				return i
			}
			return n
		})
	},
	"columns rotated by a batch": func(s *shuffled) string {
		return s.move(s.some(), func(n int) int { return (n + 1) % 20 })
	},
	"columns of batches shuffled": func(s *shuffled) string {
		p := s.rnd.Perm(20)
		return s.move(s.some(), func(n int) int { return p[n] })
	},
	"a batch doubled, one dropped": func(s *shuffled) string {
		i, j := s.rnd.IntN(20), s.rnd.IntN(20)
		return s.move(s.values, func(n int) int { return swap(n == i, j, n) })
	},
}

// TestBatchesByProperty: whatever is exchanged between the batches of a
// compressed chunk, if the rows that users see have changed, so has the hash of
// the batches.
func TestBatchesByProperty(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, v testdb.Pair) {
		s := newShuffled(t, v)
		hash, rows := s.state()
		changed := 0
		for what, statement := range moves {
			for range 40 {
				sql := statement(s)
				s.exec("begin read write; " + sql)
				h, x := s.state()
				s.exec("rollback")
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
