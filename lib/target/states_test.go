package target_test

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/verify"
)

// TestCompressedStates copies a chunk in every state of the source over one in
// every state of the target.
func TestCompressedStates(t *testing.T) {
	const freeze = "select FN.freeze_chunk(c) from show_chunks('m') c;"
	sources := []struct{ name, sql, way, why string }{
		{"uncompressed", fill(0, 1000), wayRows, ""}, // over batches: wayFresh
		{"compressed", fill(0, 1000) + compress, wayRaw, ""},
		{"partial", fill(0, 1000) + compress + fill(200, 20), wayRaw, ""},
		{"frozen", fill(0, 1000) + compress + freeze, wayRaw, ""},
		{"unordered", direct, wayFresh, "its batches are unordered"},
	}
	targets := []struct {
		name, sql string
		batches   bool
	}{
		{"absent", "", false},
		{"empty", fill(0, 1) + "delete from m;", false},
		{"dual-written", fill(50, 10), false},
		{"compressed empty", fill(0, 1) + "delete from m;" + compress, false},
		{"compressed", fill(30, 400) + compress, true},
		{"partial", fill(30, 400) + compress + fill(10, 20), true},
		{"frozen", fill(30, 400) + compress + freeze, true},
		{"unordered", direct, true},
	}
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, from := range sources {
			for _, to := range targets {
				name := from.name + " over " + to.name
				if !newest(t, p) && !slices.Contains([]string{"partial over absent", "partial over compressed empty",
					"partial over partial", "frozen over frozen", "compressed over dual-written",
					"uncompressed over compressed",
					"unordered over absent", "unordered over unordered", "partial over unordered",
					"uncompressed over unordered"}, name) {
					continue
				}
				t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
					s := both(t, p)
					s.exec(t, table+enable)
					if (from.sql == direct || to.sql == direct) && !directly(t, s.src) {
						t.Skip("this version does not compress rows as they are inserted")
					}
					fn := func(sql string, db *testdb.DB) string {
						if strings.HasPrefix(db.Install.Version, "2.11.") {
							return strings.ReplaceAll(sql, "FN", "_timescaledb_internal")
						}
						return strings.ReplaceAll(sql, "FN", "_timescaledb_functions")
					}
					s.src.Exec(t, fn(from.sql, s.src))
					if to.sql != "" {
						s.dst.Exec(t, fn(to.sql, s.dst))
					}
					before := settings(t, s.dst)
					s.stage(t, stage.Options{Until: "2025-01-01"})
					r := one(t, s.copy(t))
					compressed := from.way == wayRows && to.batches // again, as the target had it
					if compressed {
						wantWay(t, r, wayFresh, "the target's chunk is compressed")
					} else {
						wantWay(t, r, from.way, from.why)
					}
					s.same(t, "after the copy")
					var rows int64
					s.src.Query1(t, &rows, "select count(*) from m")
					if r.Rows != rows {
						t.Errorf("result says %d rows of %d", r.Rows, rows)
					}
					a, b := state(t, s.src), state(t, s.dst)
					if from.sql == direct {
						if a != "3" {
							t.Fatalf("status of the source's chunk %s, want 3", a)
						}
						a = "1" // compressed again, it is ordered
					}
					if compressed {
						a = "1"
					}
					if a != b {
						t.Errorf("status %s on the source, %s on the target", a, b)
					}
					if after := settings(t, s.dst); !reflect.DeepEqual(before, after) {
						t.Errorf("settings of the hypertable were %v, are %v", before, after)
					}
					if name == "partial over absent" || name == "unordered over unordered" {
						s.live(t)
					}
				})
			}
		}
	})
}

// direct inserts rows that the server compresses at once, in the order in which
// they come: batches overlap.
var direct = "set timescaledb.enable_direct_compress_insert = on;" + fill(500, 500) + fill(0, 500) +
	"reset timescaledb.enable_direct_compress_insert;"

// directly reports whether the server has that, once it has made a hypertable.
func directly(t *testing.T, db *testdb.DB) (yes bool) {
	t.Helper()
	db.Query1(t, &yes, "select exists (select from pg_settings "+
		"where name = 'timescaledb.enable_direct_compress_insert')")
	return yes
}

// legacy reports whether the target keeps one set of settings per hypertable.
func legacy(p testdb.Pair) bool { return strings.HasPrefix(p.Target.Version, "2.11.") }

// TestHypercore copies chunks of the table access method of 2.18 to 2.21.
func TestHypercore(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		s := both(t, p)
		var there bool
		if s.src.Query1(t, &there, "select exists (select from pg_am where amname = 'hypercore')"); !there {
			t.Skip("no such access method")
		}
		s.exec(t, table+enable)
		s.src.Exec(t, fill(0, 1000)+"select compress_chunk(c, hypercore_use_access_method => true) "+
			"from show_chunks('m') c;"+fill(200, 20))
		s.stage(t, stage.Options{Until: "2025-01-01"})
		wantWay(t, one(t, s.copy(t)), wayFresh, "hypercore")
		s.same(t, "after the copy")
		// And over such a chunk.
		s.dst.Exec(t, "select decompress_chunk(c) from show_chunks('m') c; "+
			"select compress_chunk(c, hypercore_use_access_method => true) from show_chunks('m') c;"+fill(7, 3))
		s.force = true
		rs, errs := s.lane(t, nil)
		if errs[0] != nil || rs[0].Status != task.Loaded {
			t.Fatal(rs[0], errs[0])
		}
		s.same(t, "after the second copy")
	})
}

// TestCompressedStateChanges changes the state of the chunk on either side
// between staging and copying.
func TestCompressedStateChanges(t *testing.T) {
	const decompress = "select decompress_chunk(c) from show_chunks('m') c;"
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		for _, c := range []struct{ name, before, after, target, way string }{
			{"compressed since", fill(0, 1000), compress, "", wayRaw},
			{"decompressed since", fill(0, 1000) + compress, decompress, "", wayRows},
			{"compressed since, the target too", fill(0, 1000), compress, fill(3, 5) + compress, wayRaw},
			{"decompressed since, the target compressed", fill(0, 1000) + compress, decompress,
				fill(3, 5) + compress, wayFresh},
			{"rows since", fill(0, 1000) + compress, fill(200, 20), fill(3, 5), wayRaw},
		} {
			if !thorough(t, p) && c.target == "" {
				continue
			}
			t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
				s := both(t, p)
				s.exec(t, table+enable)
				s.src.Exec(t, c.before)
				s.stage(t, stage.Options{Until: "2025-01-01"})
				s.src.Exec(t, c.after)
				if c.target != "" {
					s.dst.Exec(t, c.target)
				}
				why := ""
				if c.way == wayFresh {
					why = "the target's chunk is compressed"
				}
				wantWay(t, one(t, s.copy(t)), c.way, why)
				s.same(t, "after the copy")
			})
		}
	})
}

// TestVerifyCompressed verifies chunks that were copied as they are: by their
// batches where those prove something, else by their rows.
func TestVerifyCompressed(t *testing.T) {
	testdb.EachPair(t, func(t *testing.T, p testdb.Pair) {
		if !p.Source.Full || !p.Target.Full || p.Source != p.Target && !thorough(t, p) {
			t.Skip("other tests are about that")
		}
		s := both(t, p)
		s.exec(t, table+enable)
		s.src.Exec(t, fill(0, 1000)+compress+fill(200, 20))
		s.stage(t, stage.Options{Until: "2025-01-01"})
		wantWay(t, one(t, s.copy(t)), wayRaw, "")
		check := func(when string, status task.Status, batches bool) {
			t.Helper()
			pair, err := verify.Open(context.Background(), s.src.ConnString, s.dst.ConnString, verify.ByRows,
				pg.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer pair.Close()
			var tk *task.Task
			if err := queue.Each(context.Background(), pair.Target.Conn, queue.Selection{State: queue.All},
				func(e *queue.Entry) error {
					tk = &e.Task
					return nil
				}); err != nil {
				t.Fatal(err)
			}
			r, err := pair.Verify(context.Background(), tk)
			if err != nil || r.Status != status || strings.Contains(r.Hash, "/") != batches {
				t.Errorf("%s: %s, %q, hash %q, %v", when, r.Status, r.Message, r.Hash, err)
			}
		}
		check("after the copy", task.Verified, true)
		s.dst.Exec(t, "select decompress_chunk(c) from show_chunks('m') c;"+compress)
		check("compressed again", task.Verified, false)
		s.dst.Exec(t, "update m set v = 0 where i = 77")
		check("another value", task.Differs, false)

		s.force = true
		if rs, errs := s.lane(t, nil); errs[0] != nil || rs[0].Way != wayRaw {
			t.Fatal(rs[0], errs[0])
		}
		check("after another copy", task.Verified, true)
		s.src.Exec(t, "alter table m add d text default 'a'")
		s.dst.Exec(t, "alter table m add d text default 'b'")
		check("another default", task.Differs, false)
	})
}
