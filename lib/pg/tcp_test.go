package pg

import (
	"maps"
	"testing"
	"time"
)

func TestTCPParams(t *testing.T) {
	for _, c := range []struct {
		side   Side
		params map[string]string
		want   tcp
		fails  bool
	}{
		{Source, nil, tcp{true, 20, 10, 4, time.Minute}, false},
		{Target, nil, tcp{true, 20, 10, 4, 5 * time.Minute}, false},
		{Source, map[string]string{"keepalives_idle": "4", "keepalives_interval": "2", "keepalives_count": " 3 "},
			tcp{true, 4, 2, 3, 10 * time.Second}, false},
		{Target, map[string]string{"keepalives": "0", "tcp_user_timeout": "1500"},
			tcp{false, 20, 10, 4, 1500 * time.Millisecond}, false},
		{Source, map[string]string{"keepalives_idle": "0", "tcp_user_timeout": "0"}, tcp{true, 0, 10, 4, 0}, false},
		{Source, map[string]string{"keepalives_idle": "soon"}, tcp{}, true},
		{Source, map[string]string{"tcp_user_timeout": "-1"}, tcp{}, true},
		{Source, map[string]string{"keepalives_count": "99999999999"}, tcp{}, true},
	} {
		params := map[string]string{"search_path": "x"}
		maps.Copy(params, c.params)
		got, err := tcpParams(c.side, params)
		if c.fails != (err != nil) || err == nil && got != c.want {
			t.Errorf("%s %v: %+v, %v", c.side, c.params, got, err)
		}
		if len(params) != 1 { // the server would refuse them
			t.Errorf("%s %v: left %v", c.side, c.params, params)
		}
	}
}
