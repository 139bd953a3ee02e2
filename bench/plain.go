package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// plain is the least that speaks to the cloud: net/http, one transport that keeps its connections, a signature.
// It remembers nothing, checks nothing and writes nothing down.
type plain struct {
	*cloud
	client *http.Client
	hosts  map[string]string // ids by name
	sent   atomic.Int64
}

func newPlain(c *cloud) *plain {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.sim.CAPEM())
	hosts := map[string]string{}
	for _, h := range c.sim.Hosts() {
		hosts[h.Name] = h.ID
	}
	return &plain{cloud: c, hosts: hosts, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: concurrency, MaxIdleConns: concurrency,
	}}}
}

// call makes one; into is for the answer, nil to drop it.
func (p *plain) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	cfg := p.sim.Config()
	target := p.sim.URL() + strings.ReplaceAll(path, "{project_id}", cfg.ProjectID)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json;charset=utf8")
	huaweicloud.Sign(request, data, cfg.AccessKey, cfg.SecretKey, time.Now())
	p.sent.Add(1)
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

const (
	certificatePath = "/v1/{project_id}/waf/certificate"
	hostPath        = "/v1/{project_id}/waf/instance"
)

// object is what the client reads of an answer.
type object struct {
	ID string `json:"id"`
}

// each does something n times, as many at once as there may be calls.
func (p *plain) each(ctx context.Context, n int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// mix is how many calls of each operation N rotations made in all.
type mix map[string]int

// share is how many of them the i-th of n rotations makes.
func (m mix) share(operation string, i, n int) int {
	return m[operation]*(i+1)/n - m[operation]*i/n
}

// rotate makes as many calls of each operation as the mix has, with the same bodies: for each of the bundles one upload and one
// binding, the rest spread evenly. What it does not know is an error: the figure would be too good.
func (p *plain) rotate(ctx context.Context, bundles []*certs.Bundle, m mix) error {
	n := len(bundles)
	for operation, calls := range m {
		switch operation {
		case "ListCertificates", "ShowCertificate", "ListHost", "ShowHost":
		case "CreateCertificate", "ApplyCertificateToHost":
			if calls != n {
				return fmt.Errorf("%d calls of %s, want %d", calls, operation, n)
			}
		default:
			return fmt.Errorf("%d calls of %s, which the plain client does not know", calls, operation)
		}
	}
	return p.each(ctx, n, func(ctx context.Context, i int) error {
		name := fmt.Sprintf("rd_plain_%d_%d", i, time.Now().UnixNano())
		id := p.hosts[host(i)]
		for _, operation := range []string{"ListHost", "ListCertificates"} {
			if err := p.reads(ctx, operation, m.share(operation, i, n), id, name); err != nil {
				return err
			}
		}
		key, err := bundles[i].Key.PEM(certs.Traditional)
		if err != nil {
			return err
		}
		var created object
		upload := map[string]string{"name": name, "content": strings.TrimSpace(string(bundles[i].FullChainPEM())), "key": strings.TrimSpace(string(key))}
		if err := p.call(ctx, http.MethodPost, certificatePath, nil, upload, &created); err != nil {
			return err
		}
		binding := map[string][]string{"cloud_host_ids": {id}}
		if err := p.call(ctx, http.MethodPost, certificatePath+"/"+created.ID+"/apply-to-hosts", nil, binding, nil); err != nil {
			return err
		}
		for _, operation := range []string{"ShowHost", "ShowCertificate"} {
			if err := p.reads(ctx, operation, m.share(operation, i, n), id, created.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// reads makes so many reads of an operation, of a host by its id or of a certificate by its id or name.
func (p *plain) reads(ctx context.Context, operation string, times int, hostID, certificate string) error {
	for k := range times {
		var path string
		var query url.Values
		switch operation {
		case "ListHost":
			path, query = hostPath, url.Values{"page": {fmt.Sprint(k + 1)}, "pagesize": {"100"}}
		case "ListCertificates":
			path, query = certificatePath, url.Values{"page": {"1"}, "pagesize": {"100"}, "name": {certificate}, "host": {fmt.Sprint(k%2 == 0)}}
		case "ShowHost":
			path = hostPath + "/" + hostID
		case "ShowCertificate":
			path = certificatePath + "/" + certificate
		default:
			return fmt.Errorf("%s is no read", operation)
		}
		if err := p.call(ctx, http.MethodGet, path, query, nil, nil); err != nil {
			return err
		}
	}
	return nil
}
