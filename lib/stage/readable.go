package stage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// readable makes sure that the role may look into the schemas of the chunks:
// else every dump would fail. TimescaleDB's own schema is open to everybody, but
// chunks are where associated_schema_name says.
func readable(ctx context.Context, src *tsdb.DB, tasks []*task.Task) error {
	var schemas []string
	for _, t := range tasks {
		schemas = append(schemas, t.Chunk.Schema)
	}
	slices.Sort(schemas)
	rows, err := src.Query(ctx, `select format('%I', s) from unnest($1::text[]) s
        where not has_schema_privilege(s, 'usage') order by 1`, slices.Compact(schemas))
	if err != nil {
		return src.Wrap(err, "privileges on the schemas of the chunks")
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(closed) == 0 {
		return src.Wrap(err, "privileges on the schemas of the chunks")
	}
	list := strings.Join(closed, ", ")
	role := pg.Ident(src.Config().User)
	return &pg.Error{Side: src.Side, Object: "schema " + list,
		Err:  fmt.Errorf("chunks are there, and role %s may not look into it", role),
		Hint: fmt.Sprintf("run on the source: grant usage on schema %s to %s", list, role)}
}
