package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// dialect says things about hypertables in the SQL of one server.
type dialect struct {
	*tsdb.Language
	extension string // schema of the extension
	user      string // who runs it
	// nested are the aggregates on top of others whose refresh policy the server
	// cannot pause.
	nested map[task.Name]bool
	// types are what the primary dimensions range over, of hypertables and of
	// views of continuous aggregates.
	types map[task.Name]string
}

// fn names one of TimescaleDB's public functions.
func (l dialect) fn(name string) string { return word(l.extension) + "." + name }

// call is a call of one of them. Arguments without a value are left out: they
// come as pairs of a name and a value, or as "" and a value for the first.
func (l dialect) call(name string, pairs ...string) string {
	var args []string
	for i := 0; i+1 < len(pairs); i += 2 {
		switch {
		case pairs[i+1] == "":
		case pairs[i] == "":
			args = append(args, pairs[i+1])
		default:
			args = append(args, pairs[i]+" => "+pairs[i+1])
		}
	}
	return l.fn(name) + "(" + strings.Join(args, ", ") + ")"
}

// literal is a string constant, "" for none.
func literal(s string) string {
	if s == "" {
		return ""
	}
	return pg.Literal(s)
}

func regproc(n *task.Name) string {
	if n == nil {
		return ""
	}
	return relation(*n)
}

// chunkInterval is the width of a dimension's slices.
func chunkInterval(d tsdb.DimensionDefinition) string {
	if d.Integer() {
		return fmt.Sprintf("%d::bigint", d.Interval)
	}
	return interval(d.Interval)
}

// hypertable turns a table that is there into a hypertable.
func (l dialect) hypertable(d *tsdb.Definition) []string {
	name, first := relation(d.Name), d.Dimensions[0]
	sql := []string{"select " + l.call("create_hypertable", "", name, "", pg.Literal(first.Column),
		"chunk_time_interval", chunkInterval(first), "time_partitioning_func", regproc(first.Func),
		"associated_schema_name", literal(d.ChunkSchema), "associated_table_prefix", literal(d.ChunkPrefix),
		"create_default_indexes", "false") + ";"}
	for _, dim := range d.Dimensions[1:] {
		width, partitions := chunkInterval(dim), ""
		if dim.Partitions > 0 {
			width, partitions = "", fmt.Sprint(dim.Partitions)
		}
		sql = append(sql, "select "+l.call("add_dimension", "", name, "", pg.Literal(dim.Column),
			"number_partitions", partitions, "chunk_time_interval", width, "partitioning_func", regproc(dim.Func))+";")
	}
	if first.Now != nil {
		sql = append(sql, "select "+l.call("set_integer_now_func", "", name, "", regproc(first.Now))+";")
	}
	for _, t := range d.Tablespaces {
		sql = append(sql, "select "+l.call("attach_tablespace", "", pg.Literal(t), "", name, "if_not_attached", "true")+
			";")
	}
	if d.ChunkTarget > 0 {
		sql = append(sql, "select "+l.call("set_adaptive_chunking", "", name, "", fmt.Sprintf("'%d'", d.ChunkTarget))+
			";")
	}
	return sql
}

// settings are the statements for what is set on a hypertable when it is
// complete: some changes of a table are refused from then on.
func (l dialect) settings(d *tsdb.Definition) []string {
	var sql []string
	if d.Compressed {
		sql = append(sql, "alter table "+quote(d.Name)+" set ("+strings.Join(l.compression(d), ", ")+");")
	}
	if len(d.Skips) > 0 {
		sql = append(sql, "set timescaledb.enable_chunk_skipping = on;")
	}
	for _, column := range d.Skips {
		sql = append(sql, "select "+l.call("enable_chunk_skipping", "", relation(d.Name), "", pg.Literal(column))+";")
	}
	if len(d.Granular) > 0 {
		var options []string
		for _, name := range slices.Sorted(maps.Keys(d.Granular)) {
			options = append(options, "timescaledb."+name+" = "+pg.Literal(d.Granular[name]))
		}
		sql = append(sql, "alter table "+quote(d.Name)+" set ("+strings.Join(options, ", ")+");")
	}
	return sql
}

// compression are the options that enable it with the settings of d.
func (l dialect) compression(d *tsdb.Definition) []string {
	enable, prefix := "timescaledb.compress", "timescaledb.compress_"
	if l.Columnstore() {
		enable, prefix = "timescaledb.enable_columnstore", "timescaledb."
	}
	options := []string{enable}
	if s := d.Settings; s != nil {
		if s.SegmentBy != nil {
			options = append(options, prefix+"segmentby = "+pg.Literal(words(s.SegmentBy)))
		}
		if len(s.OrderBy) > 0 {
			options = append(options, prefix+"orderby = "+pg.Literal(orderBy(s)))
		}
		sparse, err := s.Sparse(true)
		if err == nil && len(sparse) > 0 {
			var list []string
			for _, i := range sparse {
				list = append(list, i.Kind+"("+words(i.Columns)+")")
			}
			options = append(options, prefix+"index = "+pg.Literal(strings.Join(list, ", ")))
		}
	}
	if first := d.Dimensions[0]; first.CompressedInterval > 0 {
		width := fmt.Sprintf("'%d'", first.CompressedInterval)
		if !first.Integer() {
			width = strings.TrimPrefix(interval(first.CompressedInterval), "interval ")
		}
		options = append(options, "timescaledb.compress_chunk_time_interval = "+width)
	}
	if d.DirectCompress {
		options = append(options, "timescaledb.direct_compress")
	}
	return options
}

func words(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = word(n)
	}
	return strings.Join(q, ", ")
}

func orderBy(s *tsdb.Settings) string {
	var order []string
	for i, c := range s.OrderBy {
		o := word(c)
		if s.Desc[i] {
			o += " desc"
		}
		if s.NullsFirst[i] != s.Desc[i] {
			o += map[bool]string{true: " nulls first", false: " nulls last"}[s.NullsFirst[i]]
		}
		order = append(order, o)
	}
	return strings.Join(order, ", ")
}

// aggregate makes a continuous aggregate, without rows. Its indexes are made one by one as
// they are on the source; those that the server named there it names here.
func (l dialect) aggregate(a *tsdb.AggregateDefinition, owner bool) []string {
	view := quote(a.View)
	options := fmt.Sprintf("timescaledb.continuous, timescaledb.materialized_only = %t, "+
		"timescaledb.create_group_indexes = false", a.MaterializedOnly)
	if a.Granular {
		options += ", timescaledb.enable_granular_refresh"
	}
	query := strings.TrimSuffix(strings.TrimRight(a.Query, " \n"), ";")
	sql := []string{"create materialized view " + view + " with (" + options + ") as\n" + query + "\nwith no data;"}
	// 2.11 at least takes the hypertable behind the view and not the view.
	behind := "format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass"
	width := chunkInterval(a.Hypertable.Dimensions[0])
	sql = append(sql, "select "+l.call("set_chunk_time_interval", "", behind, "", width)+
		"\nfrom timescaledb_information.continuous_aggregates where view_schema = "+pg.Literal(a.View.Schema)+
		" and view_name = "+pg.Literal(a.View.Name)+";")
	if a.NoBucketIndex {
		sql = append(sql, "do "+pg.Literal("begin execute (select 'drop index ' || indexrelid::regclass "+
			"from pg_index i, timescaledb_information.continuous_aggregates "+
			"where indrelid = "+behind+" and view_schema = "+pg.Literal(a.View.Schema)+
			" and view_name = "+pg.Literal(a.View.Name)+"); end")+";")
	}
	for _, i := range a.Indexes {
		make := "create index "
		if i.Unique {
			make = "create unique index "
		}
		if i.Name != "" {
			make += word(i.Name) + " "
		}
		sql = append(sql, make+"on "+view+" "+i.Definition+";")
	}
	if owner && a.Owner != l.user {
		sql = append(sql, "alter materialized view "+view+" owner to "+word(a.Owner)+";")
	}
	return sql
}

// aggregateSettings are the statements for what is set on an aggregate.
func (l dialect) aggregateSettings(a *tsdb.AggregateDefinition) []string {
	if !a.Hypertable.Compressed {
		return nil
	}
	options := strings.Join(l.compression(a.Hypertable), ", ")
	return []string{"alter materialized view " + quote(a.View) + " set (" + options + ");"}
}

// toResume is the column in which a job's statement returns its number where
// the job is scheduled on the source.
const toResume = "job_to_resume"

// job adds a job, paused; nil for one that TimescaleDB has no function to add.
func (l dialect) job(j *tsdb.JobDefinition, owner bool) []string {
	add, known := l.add(j)
	if add == "" {
		return nil
	}
	column := "paused_job"
	if j.Scheduled {
		column = toResume
	}
	pairs := []string{"", add, "scheduled", "false", "schedule_interval", literal(j.ScheduleInterval),
		"max_runtime", literal(j.MaxRuntime), "max_retries", fmt.Sprint(j.MaxRetries), "retry_period",
		literal(j.RetryPeriod)}
	if j.Fixed != nil && !*j.Fixed && l.Takes("alter_job", "fixed_schedule") {
		pairs = append(pairs, "fixed_schedule", "false")
	}
	if j.Timezone != "" && l.Takes("alter_job", "timezone") {
		pairs = append(pairs, "timezone", literal(j.Timezone)) // else it is set to null
	}
	if c := rest(j.Config, known); c != "" && j.Policy() {
		// Settings of the policy that its function has no argument for.
		return append([]string{}, "select a.job_id as "+column+"\nfrom (select "+add+" as id) j,\n  lateral "+
			l.call("alter_job", append([]string{"", "j.id"}, pairs[2:]...)...)+" p,\n  lateral "+
			l.call("alter_job", "", "j.id", "config", "p.config || "+pg.Literal(c)+"::jsonb")+" a;")
	}
	sql := "select job_id as " + column + " from " + l.call("alter_job", pairs...) + ";"
	if !j.Policy() && owner && j.Owner != l.user {
		// A policy is the hypertable's owner's, an action is who adds it.
		return []string{"set local role " + word(j.Owner) + ";", sql, "reset role;"}
	}
	return []string{sql}
}

// pausable reports whether the job can be made paused, and resumed.
func (l dialect) pausable(j *tsdb.JobDefinition) bool {
	return j.Proc.Name != tsdb.PolicyRefresh || j.Of == nil || !l.nested[*j.Of]
}

// unpaused is the statement that adds a job which cannot be paused.
func (l dialect) unpaused(j *tsdb.JobDefinition) string {
	add, _ := l.add(j)
	return "select " + add + ";"
}

// ids are the keys of a policy's configuration whose values are numbers of hypertables:
// the target has others.
var ids = []string{"hypertable_id", "mat_hypertable_id"}

// rest is what of a configuration is not said by the arguments of the policy's
// function; "" for nothing.
func rest(config map[string]json.RawMessage, said []string) string {
	left := map[string]json.RawMessage{}
	for k, v := range config {
		if !slices.Contains(said, k) && !slices.Contains(ids, k) {
			left[k] = v
		}
	}
	if len(left) == 0 {
		return ""
	}
	b, _ := json.Marshal(left)
	return string(b)
}

// add is the expression that adds a job and returns its number, and the keys of
// the configuration that are among its arguments.
func (l dialect) add(j *tsdb.JobDefinition) (sql string, said []string) {
	when := []string{"initial_start", literal(j.InitialStart), "timezone", literal(j.Timezone)}
	if !j.Policy() {
		pairs := []string{"", relation(j.Proc), "", literal(j.ScheduleInterval), "config", l.config(j),
			"check_config", regproc(j.Check)}
		if j.Fixed != nil && !*j.Fixed {
			pairs = append(pairs, "fixed_schedule", "false")
		}
		if l.Takes("add_job", "job_name") && j.Name != "User-Defined Action" {
			pairs = append(pairs, "job_name", literal(j.Name))
		}
		return l.call("add_job", append(pairs, when...)...), nil
	}
	if j.Of == nil {
		return "", nil
	}
	if j.Fixed != nil && !*j.Fixed {
		when = []string{"timezone", literal(j.Timezone)}
	}
	of := relation(*j.Of)
	plain := func(key string) string { said = append(said, key); return value(j.Config[key]) }
	ago := func(key string) string { said = append(said, key); return l.ago(*j.Of, j.Config[key]) }
	switch j.Proc.Name {
	case tsdb.PolicyRefresh:
		pairs := []string{"", of, "start_offset", null(ago("start_offset")), "end_offset", null(ago("end_offset")),
			"schedule_interval", literal(j.ScheduleInterval)}
		for _, key := range []string{"include_tiered_data", "buckets_per_batch", "max_batches_per_execution",
			"refresh_newest_first"} {
			if l.Takes("add_continuous_aggregate_policy", key) {
				pairs = append(pairs, key, plain(key))
			}
		}
		return l.call("add_continuous_aggregate_policy", append(pairs, when...)...), said
	case tsdb.PolicyRetention:
		return l.call("add_retention_policy", append([]string{"", of, "drop_after", ago("drop_after"),
			"drop_created_before", ago("drop_created_before")}, when...)...), said
	case tsdb.PolicyCompression:
		return l.call("add_compression_policy", append([]string{"", of, "compress_after", ago("compress_after"),
			"compress_created_before", ago("compress_created_before")}, when...)...), said
	case tsdb.PolicyReorder:
		return l.call("add_reorder_policy", append([]string{"", of, "index_name", plain("index_name")}, when...)...),
			said
	}
	return "", nil
}

func (l dialect) config(j *tsdb.JobDefinition) string {
	if j.Config == nil {
		return ""
	}
	b, _ := json.Marshal(j.Config)
	return pg.Literal(string(b))
}

// null spells out an argument that has no default.
func null(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

// value is SQL for a setting of a policy: a number, a boolean or a string.
func value(raw json.RawMessage) string {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil || v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return pg.Literal(s)
	}
	return string(raw)
}

// ago is SQL for how long ago something has to be: an interval, or a number of
// exactly the type of the dimension.
func (l dialect) ago(of task.Name, raw json.RawMessage) string {
	switch v := value(raw); {
	case v == "":
		return ""
	case strings.HasPrefix(v, "'"):
		return "interval " + v
	default:
		return v + "::" + l.types[of]
	}
}

// resume is the statement that resumes jobs, of which table is the catalog. alter_job sets
// a time zone to null that it is not given.
func (l dialect) resume(jobs []*tsdb.JobDefinition, table, ids string) string {
	zoned := slices.ContainsFunc(jobs, func(j *tsdb.JobDefinition) bool { return j.Timezone != "" })
	if zoned && l.Takes("alter_job", "timezone") {
		return fmt.Sprintf("select %s(id, scheduled => true, timezone => timezone) from %s where id in (%s);",
			l.fn("alter_job"), table, ids)
	}
	return fmt.Sprintf("select %s(n, scheduled => true) from unnest(array[%s]) n;", l.fn("alter_job"), ids)
}
