package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"sort"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type x509View struct {
	SVIDs []svidView `json:"svids"`
	// How many authorities each trust domain has.
	Bundles map[string]int `json:"bundles"`
}

type svidView struct {
	ID       string    `json:"id"`
	Hint     string    `json:"hint"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	Chain    int       `json:"chain"`
	KeyType  string    `json:"keyType"`
	// What go-spiffe says of it against the bundles that came with it: empty if it is good.
	Problem string `json:"problem"`
}

type jwtView struct {
	ID       string    `json:"id"`
	Hint     string    `json:"hint"`
	Audience []string  `json:"audience"`
	Expiry   time.Time `json:"expiry"`
	// The ID that the Workload API reads from the same token.
	ValidatedID string `json:"validatedId"`
	// How many keys each trust domain has.
	Bundles map[string]int `json:"bundles"`
}

// fetch asks for everything once: the X.509 context, the bundles alone, and a JWT-SVID if an audience is given.
func fetch(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer client.Close()

	x509Context, err := client.FetchX509Context(ctx)
	if err != nil {
		return fmt.Errorf("FetchX509Context: %w", err)
	}
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return fmt.Errorf("FetchX509Bundles: %w", err)
	}
	result := map[string]any{"x509": viewX509(x509Context), "x509Bundles": countAuthorities(bundles)}
	if o.audience != "" {
		view, err := fetchJWT(ctx, client, o.audience)
		if err != nil {
			return err
		}
		result["jwt"] = view
	}
	printLine(result)
	return nil
}

func fetchJWT(ctx context.Context, client *workloadapi.Client, audience string) (jwtView, error) {
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return jwtView{}, fmt.Errorf("FetchJWTSVID: %w", err)
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return jwtView{}, fmt.Errorf("FetchJWTBundles: %w", err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{audience}); err != nil {
		return jwtView{}, fmt.Errorf("the JWT-SVID is not valid by its bundle: %w", err)
	}
	validated, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return jwtView{}, fmt.Errorf("ValidateJWTSVID: %w", err)
	}
	if _, err := client.ValidateJWTSVID(ctx, svid.Marshal(), "other-"+audience); err == nil {
		return jwtView{}, fmt.Errorf("ValidateJWTSVID took another audience")
	}
	counts := map[string]int{}
	for _, bundle := range bundles.Bundles() {
		counts[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	return jwtView{
		ID:          svid.ID.String(),
		Hint:        svid.Hint,
		Audience:    svid.Audience,
		Expiry:      svid.Expiry,
		ValidatedID: validated.ID.String(),
		Bundles:     counts,
	}, nil
}

// watch prints a line for each X.509 context and each failure of the stream until it is told to stop.
func watch(ctx context.Context, o options) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.WatchX509Context(ctx, watcher{})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(x509Context *workloadapi.X509Context) {
	printLine(viewX509(x509Context))
}

func (watcher) OnX509ContextWatchError(err error) {
	printLine(map[string]any{"watchError": err.Error()})
}

func viewX509(x509Context *workloadapi.X509Context) x509View {
	view := x509View{Bundles: countAuthorities(x509Context.Bundles)}
	for _, svid := range x509Context.SVIDs {
		leaf := svid.Certificates[0]
		problem := ""
		if _, _, err := x509svid.Verify(svid.Certificates, x509Context.Bundles); err != nil {
			problem = err.Error()
		}
		view.SVIDs = append(view.SVIDs, svidView{
			ID:       svid.ID.String(),
			Hint:     svid.Hint,
			Serial:   hex.EncodeToString(leaf.SerialNumber.Bytes()),
			NotAfter: leaf.NotAfter,
			Chain:    len(svid.Certificates),
			KeyType:  leaf.PublicKeyAlgorithm.String(),
			Problem:  problem,
		})
	}
	return view
}

func countAuthorities(set *x509bundle.Set) map[string]int {
	counts := map[string]int{}
	bundles := set.Bundles()
	sort.Slice(bundles, func(i, j int) bool { return bundles[i].TrustDomain().Name() < bundles[j].TrustDomain().Name() })
	for _, bundle := range bundles {
		counts[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return counts
}
