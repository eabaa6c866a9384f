"""The kustomization that `smsd new` creates, on top of deploy/k8s of this checkout."""

from pathlib import Path

import yaml

from smsd.commands.new import create
from tests.manifests.cluster import Manifest, kustomize


def test_it_renders_with_its_own_image_dialogue_and_host(tmp_path: Path) -> None:
    create("pizza-bot", tmp_path / "pizza-bot")
    deploy = tmp_path / "pizza-bot" / "deploy"
    settings = deploy / "settings.env"
    settings.write_text(settings.read_text().replace("sms.example.com", "pizza.example.org"))
    rendered: list[Manifest] = list(yaml.safe_load_all(kustomize(deploy)))

    def found(kind: str) -> list[Manifest]:
        return [each for each in rendered if each["kind"] == kind]

    (deployment,) = found("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "pizza-bot:0.1.0"
    name = container["envFrom"][0]["configMapRef"]["name"]
    (config,) = [each for each in found("ConfigMap") if each["metadata"]["name"] == name]
    assert config["data"]["SMSD_DIALOGUE"] == "pizza_bot:reply"
    assert config["data"]["SMSD_STORE"].startswith("memcached://"), "the rest stays"
    (ingress,) = found("Ingress")
    assert ingress["spec"]["rules"][0]["host"] == "pizza.example.org"
    assert ingress["spec"]["tls"][0]["hosts"] == ["pizza.example.org"]
