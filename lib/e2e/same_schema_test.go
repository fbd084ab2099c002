package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"bf/lib/schema"
	"bf/lib/testdb"
)

// compare runs bf-verify --schema and returns what it found, by object and part.
func (p *pair) compare(t testing.TB, status int) (diffs []schema.Difference, stderr string) {
	t.Helper()
	r := p.run(t, "", "bf-verify", "--source", p.source, "--target", p.target, "--schema")
	if r.status != status {
		t.Fatalf("bf-verify --schema: exit status %d, not %d\n%s%s", r.status, status, r.stderr, r.stdout)
	}
	for _, l := range lines(r.stdout) {
		var d schema.Difference
		if err := json.Unmarshal([]byte(l), &d); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		diffs = append(diffs, d)
	}
	return diffs, r.stderr
}

func said(diffs []schema.Difference) (all []string) {
	for _, d := range diffs {
		all = append(all, strings.TrimSuffix(d.Object+", "+d.Part, ", "))
	}
	slices.Sort(all)
	return all
}

// change is one that makes the target's schema another, the source's being that of
// furnish, and what is to be said of it.
type change struct {
	sql  string
	says string // of an object and part; its beginning for a job
	full bool   // in the full edition only
	// helps is set where the statement that is printed brings the target back.
	helps bool
}

var changes = []change{
	{`alter table other drop column b`, `column public.other.b`, false, true},
	{`alter table other add column more int`, `column public.other.more`, false, false},
	{`alter table other alter column c type varchar(7) collate "C"`,
		`column public.other.c, collation`, false, false},
	{`alter table other alter column a add generated always as identity`,
		`column public.other.a, identity`, false, true},
	{`alter table other alter column d type bigint`, `column public.other.d, type`, false, true},
	{`alter table "Klein" alter column m drop not null`, `column public."Klein".m, not null`, false, true},
	{`alter table "Größe"."Mess Werte" alter column "Text" set default 'other'`,
		`column "Größe"."Mess Werte"."Text", default`, false, true},
	{`alter table "Größe"."Mess Werte" drop constraint "zum Gerät"`,
		`constraint "zum Gerät" of "Größe"."Mess Werte"`, false, true},
	{`alter table "Größe"."Mess Werte" drop constraint "Mess Werte_Wert_check";
		alter table "Größe"."Mess Werte" add constraint "Mess Werte_Wert_check" check ("Wert" > -7)`,
		`constraint "Mess Werte_Wert_check" of "Größe"."Mess Werte", definition`, false, true},
	{`drop index "Größe"."By ""Text"""`, `index "Größe"."By ""Text"""`, false, true},
	{`create index extra on tage (wer)`, `index public.extra`, false, false},
	{`drop trigger "Stempel" on "Größe"."Mess Werte"`, `trigger "Stempel" of "Größe"."Mess Werte"`, false, true},
	{`alter table other disable trigger stamp`, `trigger stamp of public.other, enabled`, false, false},
	{`drop policy "Nur ""eigene""" on tage`, `policy "Nur ""eigene""" of public.tage`, false, false},
	{`alter table tage disable row level security`, `table public.tage, row security`, false, true},
	{`create or replace view v_pk as select id, "Name", min(z) as max from "Größe"."Gerät" group by id`,
		`view public.v_pk, definition`, false, true},
	{`drop materialized view "Größe"."Zahl"`, `materialized view "Größe"."Zahl"`, false, false},
	{`create or replace function "Größe"."Jetzt"() returns bigint language sql stable as 'select 2000::bigint'`,
		`function "Größe"."Jetzt"(), definition`, false, true},
	{`alter type "Größe"."Zustand" add value 'neu'`, `type "Größe"."Zustand", definition`, false, false},
	{`alter sequence "Größe"."Nr." increment 5`, `sequence "Größe"."Nr.", definition`, false, false},
	{`select setval('"Größe"."Gerät_id_seq"', 3)`, `sequence "Größe"."Gerät_id_seq", next value`, false, true},
	{`create table alone (a int, primary key (a))`, `table public.alone`, false, false},
	{`drop table "Größe"."Kind"`, `table "Größe"."Kind"`, false, false},
	{`select set_chunk_time_interval('zähler', 777)`,
		`hypertable public."zähler", dimension n, interval of chunks`, false, true},
	{`select set_number_partitions('zähler', 5, 'W')`,
		`hypertable public."zähler", dimension "W", partitions`, false, true},
	{`alter table zähler set (timescaledb.compress, timescaledb.compress_segmentby = '', timescaledb.compress_orderby = 'n')`,
		`hypertable public."zähler", compression`, true, true},
	{`alter materialized view "Größe"."z Stunde" set (timescaledb.materialized_only = true)`,
		`continuous aggregate "Größe"."z Stunde", materialized_only`, true, true},
	{`select drop_it('"Mein Index"')`, `continuous aggregate "Größe"."z Stunde", index "Mein Index"`, true, true},
	{`select remove_retention_policy('zähler')`, `job policy_retention of public."zähler"`, true, false},
	{`select remove_retention_policy('"Größe"."m Tag"'); select add_retention_policy('"Größe"."m Tag"', interval '11 years')`,
		`job policy_retention of "Größe"."m Tag", definition`, true, false},
	{`select delete_job(job_id) from timescaledb_information.jobs where proc_name = 'Do it' and fixed_schedule`,
		`job "Größe"."Do it" `, true, false},
}

// TestVerifySchema: a clone has the same schema, whatever the versions; whatever
// is then changed on the target is found, and nothing else, and what is said to
// help does.
func TestVerifySchema(t *testing.T) {
	for n, v := range moves(t) {
		t.Run(v.String(), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("random seed %d", seed)
			r := rand.New(rand.NewPCG(0, seed))
			p := newPair(t, v)
			withRoles(t, p.src, p.dst)
			furnish(t, p.src, v.Source.Version, true)
			p.src.Exec(t, part(t, "rows.sql"))
			p.src.Exec(t, `create table other (a int not null, b text, c varchar(7), d int);
				create trigger stamp before insert on other for each row execute function "Größe"."Stamp"();
				create function drop_it(n text) returns void language plpgsql as $$
				begin execute 'drop index _timescaledb_internal.' || n; end$$`)
			stderr, status := output(t, p.clone(t))
			if status != 0 {
				t.Fatal(stderr)
			}
			known, want := []string(nil), 0
			if strings.Contains(stderr, "cannot pause it: ") { // that job is not made, which is true to say
				known, want = []string{`job policy_refresh_continuous_aggregate of "Größe"."m Tag"`}, 3
			}
			found, stderr := p.compare(t, want)
			diff(t, "a clone", known, said(found))
			if !strings.Contains(stderr, "paused on the target; after the switch: select ") {
				t.Errorf("nothing of jobs in %s", stderr)
			}
			if n > 0 {
				return
			}
			for _, i := range r.Perm(len(changes))[:12] {
				known = p.changeSchema(t, changes[i], known)
			}
		})
	}
}

// changeSchema changes the schema of the target, looks at what is said then, and
// takes the change back where that helps. It returns what is said afterwards.
func (p *pair) changeSchema(t *testing.T, c change, before []string) []string {
	t.Helper()
	p.dst.Exec(t, c.sql)
	found, _ := p.compare(t, 3)
	names := slices.DeleteFunc(said(found), func(s string) bool { return slices.Contains(before, s) })
	if len(names) != 1 || !strings.HasPrefix(names[0], c.says) {
		t.Errorf("%s: says %q, want %s", c.sql, names, c.says)
	}
	if !c.helps {
		return said(found)
	}
	for _, d := range found {
		if slices.Contains(names, said([]schema.Difference{d})[0]) {
			p.dst.Exec(t, d.Helps)
		}
	}
	status := 3
	if len(before) == 0 {
		status = 0
	}
	after, _ := p.compare(t, status)
	diff(t, c.sql+" and what helps", before, said(after))
	return said(after)
}

// TestVerifySchemaEditions: a clone to the Apache edition, or of a plain
// PostgreSQL, lacks what was left out, and that is said.
func TestVerifySchemaEditions(t *testing.T) {
	v := newestPair(t)
	v.Target.Full = false
	p := newPair(t, v)
	withRoles(t, p.src, p.dst)
	furnish(t, p.src, v.Source.Version, true)
	wantOutput(t, p.clone(t, "--leave-out"), 0)
	found, _ := p.compare(t, 3)
	for _, s := range said(found) {
		on := []string{`view "Größe"."1 Sicht"`, `materialized view "Größe"."0 Stand"`, `function "Größe"."0 Summe"()`,
			`function "Größe"."0 Zeilen"()`}
		if !strings.HasPrefix(s, "continuous aggregate ") && !strings.HasPrefix(s, "job ") &&
			!strings.HasSuffix(s, ", compression") && !slices.Contains(on, s) {
			t.Errorf("says %s", s)
		}
	}
	if n := len(said(found)); n != 5+12+4+4 {
		t.Errorf("%d differences: %q", n, said(found))
	}

	p = newPair(t, testdb.Pair{Source: v.Source, Target: v.Source})
	p.src.Exec(t, "drop extension timescaledb cascade")
	p.src.Reconnect()
	p.src.Exec(t, plainSQL)
	wantOutput(t, p.clone(t, "--leave-out", "--hypertable", `"Größe"."Mess Werte"=Zeit,1 day`,
		"--hypertable", `events="at",1000`), 0)
	found, _ = p.compare(t, 3)
	left := []string{"constraint events_pkey of public.events", "constraint seen_event_fkey of public.seen",
		"rule ruled of public.events"}
	diff(t, "plain PostgreSQL", left, said(found))
}

// TestCloneRefusesWhatIsMissing: the target's server lacks an extension, a
// tablespace of a table, one of a hypertable.
func TestCloneRefusesWhatIsMissing(t *testing.T) {
	in := testdb.Installs(t)
	p := newPair(t, testdb.Pair{Source: in[0], Target: in[0]})
	space := fmt.Sprintf("bf_space_%d", os.Getpid())
	p.src.Exec(t, "create table t (time timestamptz not null); select create_hypertable('t', 'time')")
	p.src.Exec(t, "create table plain (a int)")
	p.src.Exec(t, "set allow_in_place_tablespaces = on")
	p.src.Exec(t, "create tablespace "+space+" location ''")
	t.Cleanup(func() { p.src.Exec(t, "drop tablespace "+space) })
	missing := "target: these %s do not exist there: %s\nhint: %s"

	p.src.Exec(t, "alter table plain set tablespace "+space)
	wantOutput(t, p.clone(t), 1, fmt.Sprintf(missing, "tablespaces", space, "create them"))
	p.src.Exec(t, "alter table plain set tablespace pg_default")
	p.src.Exec(t, "select attach_tablespace('"+space+"', 't')")
	wantOutput(t, p.clone(t), 1, fmt.Sprintf(missing, "tablespaces", space, "create them"))
	p.src.Exec(t, "select detach_tablespace('"+space+"', 't')")

	// As if its server had an extension that the target's has not.
	p.src.Exec(t, `insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
		values (99999, 'bf nowhere', 10, 'public'::regnamespace, false, '1')`)
	wantOutput(t, p.clone(t), 1, fmt.Sprintf(missing, "extensions", "bf nowhere", "install them on the target's server"))
	p.src.Exec(t, "delete from pg_extension where oid = 99999")
	wantOutput(t, p.clone(t), 0)
}
