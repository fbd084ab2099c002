package e2e

import (
	"strings"
	"testing"

	"bf/lib/task"
	"bf/lib/testdb"
)

// TestPlainMajors: the source may be of a major version for which there is no
// TimescaleDB here, older or newer than the target's: copied, and compared row by row
// whatever the types. PostgreSQL before 14 is not read by blocks: a table without an
// index is refused, with the reason, and copied if it is to be all the same.
func TestPlainMajors(t *testing.T) {
	found := testdb.Plain(t)
	if len(found) == 0 {
		t.Skip("needs PostgreSQL of another major version than those with TimescaleDB: name it in BF_TEST_BINDIR")
	}
	for _, in := range found {
		t.Run(in.String(), func(t *testing.T) { plainMajor(t, testdb.Pair{Source: in, Target: newest(t).Target}) })
	}
}

const (
	majorTypes = `create type mood as enum ('sad', 'ok'); create type pair as (a int, b text);
        create domain positive as int check (value > 0)`
	majorColumns = `time timestamptz not null, id bigint not null, f float8, r real, n numeric, t text, c char(5),
        b bytea, j jsonb, u uuid, i interval, ip inet, a int[], ta text[], m mood, p pair, d positive, x bool,
        primary key (id, time)`
	majorRows = `select '2024-01-01'::timestamptz + i * interval '10 minutes', (i::bigint << 33) + i, i / 7.0, i / 7.0,
        i / 8.0, 'täxt ' || i, i, decode(md5(i::text), 'hex'), jsonb_build_object('i', i, 'n', i / 4.0),
        md5(i::text)::uuid, i * interval '1 hour', '10.0.0.1'::inet + i, array[i, null, i + 1], array['a', i::text],
        case when i % 2 = 0 then 'sad' else 'ok' end::mood, row(i, 'x')::pair, i + 1, i % 3 = 0
        from generate_series(0, 999) i`
)

func plainMajor(t *testing.T, in testdb.Pair) {
	p := newPlain(t, in)
	p.both(t, majorTypes+"; create table types ("+majorColumns+")")
	p.src.Exec(t, `insert into types `+majorRows+`;
        insert into types (time, id, f, n) values ('2024-01-02', -1, '-0', '1.00'), ('2024-01-02', -2, 'NaN', '-1.0');
        create index on types (time);
        create table m (time timestamptz not null, v int, pad text default repeat('x', 500));
        insert into m select '2024-01-01'::timestamptz + i * interval '1 minute', i from generate_series(0, 28799) i`)
	const day = "'time', chunk_time_interval => interval '1 day')"
	p.dst.Exec(t, `select create_hypertable('types', `+day+`;
        create table m (time timestamptz not null, v int, pad text); select create_hypertable('m', `+day)
	by := task.ByBlocks
	if in.Source.Major < 14 {
		by = task.ByRange
		r := p.run(t, "", "bf-stage", "--source", p.source, "--target", p.target, "--until", "2024-02-01")
		if r.status != 1 || !strings.Contains(r.stderr, "20 tasks would read it 20.0 times") ||
			!strings.Contains(r.stderr, "PostgreSQL 13 is not read by blocks: from 14 on") {
			t.Errorf("exit status %d\n%s", r.status, r.stderr)
		}
	}
	if got := byRelation(p.stage(t, "--until", "2024-02-01", "--scan", "any"))["m"][0].Scan.By; got != by {
		t.Errorf("read by %s, want %s", got, by)
	}
	p.copy(t)
	p.same(t, "select * from m")
	p.same(t, "select * from types")
	for _, method := range []string{"rows", "values", "summary"} {
		r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET" --all --method `+method)
		if r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 27 {
			t.Errorf("bf-verify --method %s: exit status %d\n%s%s", method, r.status, r.stdout, r.stderr)
		}
	}
	halves := `bf-chunks --target "$TARGET" --done | bf-verify --source "$SOURCE" - | bf-verify --target "$TARGET" -`
	if r := p.sh(t, halves); r.status != 0 || strings.Count(r.stdout, `"status":"verified"`) != 27 {
		t.Errorf("bf-verify by halves: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	p.dst.Exec(t, `update types set n = 0.1250 where id = (1::bigint << 33) + 1; update types set f = 0 where id = -1;
        update types set ta = array['a', 'b'] where id = (500::bigint << 33) + 500`)
	r := p.sh(t, `bf-verify --source "$SOURCE" --target "$TARGET" --all`)
	if r.status != 3 || strings.Count(r.stdout, `"status":"differs"`) != 3 ||
		!strings.Contains(r.stdout, `"key":"(id=4294967296500, time=2024-01-04 11:20:00+00)"`) ||
		strings.Count(r.stdout, `"equal_by_value":true`) != 2 {
		t.Errorf("bf-verify after updates: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	r = p.sh(t, halves)
	if r.status != 3 || strings.Count(r.stdout, `"status":"differs"`) != 3 {
		t.Errorf("bf-verify by halves after updates: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
}
