package waf

import (
	"context"

	"github.com/rotatord/rotatord/internal/providers"
)

var _ providers.Lister = (*Target)(nil)

// List returns the names of all hosts of the modes, whether or not they speak HTTPS: only
// Show host tells that (reference 2.8). It costs one call for each hundred hosts and
// mode, and makes the hosts' ids known.
func (t *Target) List(ctx context.Context) ([]string, error) {
	var names []string
	for _, m := range t.modes {
		rows, err := t.listHosts(ctx, m, "")
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			name := canonical(string(row.Hostname))
			if len(t.modes) == 1 {
				t.hosts.put(name, hostRef{mode: m, id: string(row.ID)})
			}
			names = append(names, name)
		}
	}
	return names, nil
}
