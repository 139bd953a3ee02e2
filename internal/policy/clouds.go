package policy

import "slices"

// Clouds are the names of the clouds that a policy uses, sorted.
func (p *Policy) Clouds() []string {
	var clouds []string
	if p.Source.PrivateCA != nil {
		clouds = append(clouds, p.Source.PrivateCA.Cloud)
	}
	if p.Source.IdentityCenter != nil {
		clouds = append(clouds, p.Source.IdentityCenter.Cloud)
	}
	for _, t := range p.Targets {
		if t.WAF != nil {
			clouds = append(clouds, t.WAF.Cloud)
		}
		if t.APIG != nil {
			clouds = append(clouds, t.APIG.Cloud)
		}
	}
	slices.Sort(clouds)
	return slices.Compact(clouds)
}
