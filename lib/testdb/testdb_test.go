package testdb

import (
	"strings"
	"testing"
)

func TestEachVersion(t *testing.T) {
	EachVersion(t, func(t *testing.T, p Pair) {
		source, target := New(t, p.Source, "source"), New(t, p.Target, "target")
		var a, b, version string
		const system = "select system_identifier::text from pg_control_system()"
		source.Query1(t, &a, system)
		target.Query1(t, &b, system)
		if a == b {
			t.Errorf("source and target are one cluster: %s", a)
		}
		source.Query1(t, &version, "select extversion from pg_extension where extname = 'timescaledb'")
		if version != p.Source.Version {
			t.Errorf("version %s, want %s", version, p.Source.Version)
		}
		source.Exec(t, "create table m (time timestamptz not null, v int); select create_hypertable('m', 'time'); insert into m values ('2024-01-01', 1)")
		if got := source.Rows(t, "select v, null from m"); len(got) != 1 || strings.Join(got[0], "|") != "1|NULL" {
			t.Errorf("rows %q", got)
		}
	})
}
