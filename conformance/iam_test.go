package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/global"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	apig "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/apig/v2"
	apigmodel "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/apig/v2/model"
	iam "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/iam/v3"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/iam/v3/model"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// The SDK gets a temporary key of an agency and signs with it.
func TestTemporaryKeyOfAgency(t *testing.T) {
	g := newGateway(t, cloudsim.Config{Agency: "rotators", DomainID: domainID, Domain: "conformance"})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(g.sim.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	cfg := config.DefaultHttpConfig().WithHttpTransport(transport)

	account, err := global.NewCredentialsBuilder().WithAk("AKIDEXAMPLE").WithSk("only-for-tests").WithDomainId(domainID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := iam.IamClientBuilder().WithEndpoint(g.sim.URL()).WithCredential(account).WithHttpConfig(cfg).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := iam.NewIamClient(client).CreateTemporaryAccessKeyByAgency(&model.CreateTemporaryAccessKeyByAgencyRequest{
		Body: &model.CreateTemporaryAccessKeyByAgencyRequestBody{Auth: &model.AgencyAuth{Identity: &model.AgencyAuthIdentity{
			Methods:    []model.AgencyAuthIdentityMethods{model.GetAgencyAuthIdentityMethodsEnum().ASSUME_ROLE},
			AssumeRole: &model.IdentityAssumerole{AgencyName: "rotators", DomainName: new("conformance"), DurationSeconds: new(int32(3600))},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key := issued.Credential
	temporary, err := basic.NewCredentialsBuilder().WithAk(key.Access).WithSk(key.Secret).WithSecurityToken(key.Securitytoken).WithProjectId(projectID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	gateways, err := apig.ApigClientBuilder().WithEndpoint(g.sim.URL()).WithCredential(temporary).WithHttpConfig(cfg).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	list := func() error {
		_, err := apig.NewApigClient(gateways).ListCertificatesV2(&apigmodel.ListCertificatesV2Request{InstanceId: gatewayID})
		return err
	}
	if err := list(); err != nil {
		t.Error(err)
	}
	g.sim.ExpireKeys()
	wantAPIGRefused(t, list(), 401, "APIGW.0301")
}
