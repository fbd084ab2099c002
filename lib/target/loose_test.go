package target_test

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/testdb"
	"bf/lib/tsdb"
)

// looseWorld is a generated situation of TestLoose.
type looseWorld struct {
	steps                []string // both sides, source and target in this order
	both, source, target string
	after                string // on both, once the source has compressed
	owner, grant         bool
	until                string
	legacy               bool
	never                [2][]string // columns that the source (target) never had
}

const looseTable = "create table m(x1 int, ts timestamptz not null, x2 text, dev int not null, i bigint, " +
	"v float8, x3 int);"

// looseRows are two chunks of the source.
const looseRows = `insert into m(ts, dev, i, v)
    select d + n * interval '10 minutes', n % 4, n, case when n % 4 > 0 then n / 7.0 end
    from generate_series(0, 300) n, unnest(array['2024-01-04'::timestamptz, '2024-02-15']) d;`

// looseSteps are steps that lead to each of the reasons.
var looseSteps = []string{
	"", "", "",
	"other interval, chunk of the target",
	"other interval, chunk of the target, compressed chunk of the target",
	"referenced, aggregate",
	"referenced, insert trigger",
	"referenced, chunk of the target",
	"referenced, unordered",
	"referenced, default later",
	"chunk of the target, default for that",
	"policy, T inside",
	"policy, T inside, chunk of the target, compressed chunk of the target",
	"policy, owner, insert trigger",
	"owner, aggregate, delete trigger",
	"policy, owner, aggregate, delete trigger",
	"policy, owner, chunk of the target, other settings",
	"owner, grant, insert trigger, drop x1 on the target",
}

// world makes one of the situations that could keep chunks from being compressed: with
// the steps, and without others that would hide what they lead to.
func world(rnd *rand.Rand, version, steps string) (w looseWorld) {
	has := func(step string) bool { return slices.Contains(strings.Split(steps, ", "), step) }
	maybe := func(name, sql string, to *string) bool {
		hides := slices.Contains([]string{"other partitions", "not enabled", "T inside", "grant", "policy"}, name)
		if !has(name) && (steps != "" && hides || rnd.IntN(5) > 0) {
			return false
		}
		w.steps = append(w.steps, name)
		*to += sql
		return true
	}
	space := ""
	interval := "7 days"
	w.legacy = strings.HasPrefix(version, "2.11.")
	if maybe("partitions", "", new(string)) {
		space = ", 'dev', 2"
	}
	create := func(partitions, interval string) string {
		return fmt.Sprintf("select create_hypertable('m', 'ts'%s, chunk_time_interval => interval '%s');",
			partitions, interval)
	}
	w.source = create(space, interval)
	if maybe("other partitions", "", new(string)) {
		space = ", 'dev', 3"
	}
	if maybe("other interval", "", new(string)) {
		interval = "3 days"
	}
	w.target = create(space, interval)
	const key = "alter table m add unique (ts, dev);"
	referenced := tsdb.AtLeast(version, "2.17") && maybe("referenced", key, &w.both)
	if !referenced { // ≥ 2.28 updates no column of another key in batches
		maybe("key", "alter table m add unique (ts, dev, i);", &w.both)
	}
	for _, c := range []string{"x1", "x2", "x3"} {
		drop := "alter table m drop " + c + ";"
		n := rnd.IntN(8)
		if has("drop " + c + " on the target") {
			n = 2
		}
		switch n {
		case 0:
			w.steps, w.source, w.target = append(w.steps, "drop "+c), w.source+drop, w.target+drop
		case 1:
			w.steps, w.source, w.never[1] = append(w.steps, "drop "+c+" on the source"), w.source+drop,
				append(w.never[1], c)
		case 2:
			w.steps, w.target, w.never[0] = append(w.steps, "drop "+c+" on the target"), w.target+drop,
				append(w.never[0], c)
		}
	}
	if maybe("aggregate", "", new(string)) {
		w.both += "create materialized view c with (timescaledb.continuous) as " +
			"select time_bucket('1 day', ts), sum(v) from m group by 1 with no data;"
	}
	if maybe("chunk of the target", "insert into m(ts, dev, i) values ('2024-01-05', 1, -1);", &w.target) {
		maybe("default for that", "alter table m add d text default 'new';", &w.target)
	}
	if !strings.Contains(w.target, " add d ") {
		maybe("default later", "alter table m add d text default 'old';", &w.after)
	} else {
		w.source += "alter table m add d text;"
	}
	maybe("insert trigger", "create function pass() returns trigger language plpgsql as 'begin return new; end'; "+
		"create trigger pass before insert on m for each row execute function pass();", &w.target)
	maybe("delete trigger", "create function gone() returns trigger language plpgsql as 'begin return old; end'; "+
		"create trigger gone before delete on m for each row execute function gone();", &w.target)
	maybe("reference", "create table r(dev int primary key); insert into r select generate_series(0, 9); "+
		"alter table m add foreign key (dev) references r;", &w.target)
	settings := []string{"timescaledb.compress_segmentby = 'dev', timescaledb.compress_orderby = 'ts'",
		"timescaledb.compress_segmentby = 'dev', timescaledb.compress_orderby = 'ts desc'"}
	w.source += "alter table m set (timescaledb.compress, " + settings[0] + ");"
	switch {
	case maybe("not enabled", "", new(string)):
	case maybe("other settings", "", new(string)) && !strings.HasPrefix(version, "2.11."):
		w.target += "alter table m set (timescaledb.compress, " + settings[1] + ");"
	default:
		w.target += "alter table m set (timescaledb.compress, " + settings[0] + ");"
		if strings.Contains(w.target, "values") {
			maybe("compressed chunk of the target", compress, &w.target)
		}
	}
	if referenced {
		w.target += "create table o(ts timestamptz, dev int, foreign key (ts, dev) references m (ts, dev));"
	}
	w.source += looseRows + compress
	maybe("partial", "insert into m(ts, dev, i) values ('2024-01-04 00:01', 1, -7);", &w.source)
	maybe("unordered", "update _timescaledb_catalog.chunk set status = status | 2 where status in (1, 9);", &w.source)
	if w.until = "2025-01-01"; maybe("T inside", "", new(string)) {
		w.until = "2024-02-16"
	}
	if strings.Contains(w.target, "timescaledb.compress,") {
		maybe("policy", "select add_compression_policy('m', interval '7 days');", &w.target)
	}
	if w.owner = maybe("owner", "", new(string)); w.owner {
		w.grant = maybe("grant", "", new(string))
	}
	return w
}

// TestLoose generates situations and checks that staging has foreseen which chunks
// the loads then leave uncompressed, and why; and that they are compressed but for
// that.
func TestLoose(t *testing.T) {
	testdb.EachFull(t, func(t *testing.T, p testdb.Pair) {
		steps, all := looseSteps, thorough(t, p)
		if all {
			steps = slices.Concat(steps, make([]string, 5))
		}
		h := fnv.New64()
		h.Write([]byte(p.Source.Version))
		rnd := rand.New(rand.NewPCG(13, h.Sum64()))
		for i, with := range steps {
			if !all && rnd.IntN(2) == 0 {
				continue // others have it
			}
			if strings.Contains(with, "referenced") && !tsdb.AtLeast(p.Source.Version, "2.17") {
				continue // no table may reference a hypertable
			}
			w := world(rnd, p.Source.Version, with)
			t.Run(fmt.Sprintf("%d %s", i, with), func(t *testing.T) {
				s := both(t, p)
				w.run(t, s)
			})
		}
	})
}

// sql is all that one side is made by: what both have comes after the hypertable.
func (w looseWorld) sql(side int) string {
	hypertable, rest, _ := strings.Cut([]string{w.source, w.target}[side], ";")
	table := looseTable
	for _, c := range w.never[side] {
		table = regexp.MustCompile(c+" [a-z]+").ReplaceAllString(table, "")
	}
	table = regexp.MustCompile("(, )+").ReplaceAllString(table, ", ")
	table = strings.NewReplacer("(, ", "(", ", )", ")").Replace(table)
	return table + hypertable + ";" + w.both + rest
}

// settled reports whether nothing but the load compresses the chunks, and can.
func (w looseWorld) settled() bool {
	return !strings.Contains(w.target, "references m") && !strings.Contains(w.target, "add_compression_policy") &&
		!strings.Contains(w.target, " add d ") && !w.legacy
}

func (w looseWorld) run(t *testing.T, s *sides) {
	defer func() {
		if t.Failed() {
			t.Logf("%v\nsource: %s\ntarget: %s", w.steps, w.sql(0)+w.after, w.sql(1)+w.after)
		}
	}()
	s.src.Exec(t, w.sql(0)+w.after)
	as := ""
	if w.owner {
		s.as, as = s.dst.Role(t, "bf_owner"), "grant create on schema public to bf_owner; set role bf_owner;"
	}
	s.dst.Exec(t, as+w.sql(1)+w.after+"reset role")
	if w.grant {
		s.dst.Exec(t, "grant create on schema _timescaledb_internal to bf_owner")
	}
	plan := s.stage(t, stage.Options{Until: w.until, Choice: tsdb.Choice{Filter: `^public\.m$`}})
	certain, possible := map[task.Loose]int{}, map[task.Loose]int{}
	for _, l := range plan.Loose {
		if possible[l.Why] += l.Chunks; !l.Maybe {
			certain[l.Why] += l.Chunks
		}
		if l.Uncompressed <= 0 || l.Compressed <= 0 || l.Helps == "" || l.Why.Says() == "" {
			t.Errorf("foreseen without size or help: %+v", l)
		}
	}
	said := map[task.Loose]int{}
	for _, r := range s.copy(t) {
		if r.LeftUncompressed != "" {
			said[r.LeftUncompressed]++
			if !strings.Contains(r.WhyNotRaw+r.Message, "left uncompressed") {
				t.Errorf("%s, and the message is %q, %q", r.LeftUncompressed, r.WhyNotRaw, r.Message)
			}
		}
		if w.settled() && (r.LeftUncompressed == task.LooseRange || r.LeftUncompressed == task.LoosePrivilege) {
			t.Errorf("%s, and nobody else would compress it: %s", r.LeftUncompressed, r.Message)
		}
		if strings.HasPrefix(r.Way, "raw") && r.LeftUncompressed != "" {
			t.Errorf("%s after %s", r.LeftUncompressed, r.Way)
		}
	}
	for why := range mapsUnion(said, possible) {
		if said[why] < certain[why] || said[why] > possible[why] {
			t.Errorf("foreseen %d to %d chunks (%s), the loads say %d", certain[why], possible[why], why, said[why])
		}
	}
	t.Log(w.steps, "certain", certain, "possible", possible, "said", said)
	if len(said) == 0 {
		if n := s.dst.Rows(t, "select count(*) from timescaledb_information.chunks where hypertable_name = 'm' "+
			"and not is_compressed")[0][0]; n != "0" {
			t.Errorf("%s chunks are not compressed, and no result says so", n)
		}
	}
	const rows = "select ts, dev, i, v from m order by 1, 2, 3, 4"
	want := s.src.Rows(t, "select ts, dev, i, v from m where ts < '"+w.until+"'")
	same(t, "after the copy", want, s.dst.Rows(t, rows))
}

func mapsUnion(a, b map[task.Loose]int) map[task.Loose]bool {
	m := map[task.Loose]bool{}
	for _, x := range []map[task.Loose]int{a, b} {
		for k := range x {
			m[k] = true
		}
	}
	return m
}
