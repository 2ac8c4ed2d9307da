"""Where dockerd itself departs from its description, so that we do, too. Each table says why."""

from __future__ import annotations

NULLABLE = frozenset(
    """
    ContainerConfig.Cmd ContainerConfig.Entrypoint ContainerConfig.Env ContainerConfig.Volumes
    EndpointSettings.Aliases EndpointSettings.DNSNames EndpointSettings.IPAMConfig EndpointSettings.Links
    HostConfig.Binds HostConfig.CapAdd HostConfig.CapDrop HostConfig.ExtraHosts HostConfig.GroupAdd HostConfig.Links
    HostConfig.MaskedPaths HostConfig.ReadonlyPaths HostConfig.SecurityOpt HostConfig.VolumesFrom
    Resources.DeviceCgroupRules Resources.DeviceRequests Resources.MemorySwappiness
    ImageConfig.Cmd ImageConfig.Entrypoint ImageConfig.Env ImageConfig.Labels ImageConfig.Volumes
    ImageHistoryResponseItem.Tags ImageSummary.Labels
    IPAM.Options Volume.Labels Volume.Options VolumeListResponse.Warnings
    PluginsInfo.Authorization RegistryServiceConfig.Mirrors SystemInfo.GenericResources SystemInfo.Warnings
    """.split()
) | {
    "POST /build/prune.CachesDeleted",
    "POST /containers/prune.ContainersDeleted",
    "POST /images/prune.ImagesDeleted",
    "POST /networks/prune.NetworksDeleted",
    "POST /volumes/prune.VolumesDeleted",
    "DriverData.Data",  # of an image, with containerd's store
    "GET /exec/{id}/json.ExitCode",  # of a session that runs
}
"""Go's slices, maps and pointers that hold nothing: dockerd sends null, and clients in Go see no difference."""

EXTRA = frozenset(
    {
        # dockerd sends them for old clients, and the description leaves them out on purpose
        "EventMessage.status",
        "EventMessage.id",
        "EventMessage.from",
        "ImageInspect.ContainerConfig",  # not since 1.45, but compose v1 speaks whatever is newest and reads it
        # every stream's messages have them, and docker push shows a line for each id
        "PushImageInfo.id",
        "PushImageInfo.aux",
        "PushImageInfo.errorDetail",
        # ours: clients ignore what they do not know
        "ContainerSummary.Isolation",  # the wall
        "ErrorDetail.line",  # of the Dockerfile
    }
)
"""Members that are sent and not described."""

VALUES = {
    "RestartPolicy.Name": frozenset({"unhealthy"}),  # ours
    "HostConfig.LogConfig.Type": frozenset({"local"}),  # dockerd has had it since 18.09
}
"""Values that a list of values does not have."""

STREAMED = {
    "POST /build": "BuildInfo",
    "POST /images/create": "CreateImageInfo",
    "POST /images/{name}/push": "PushImageInfo",
    "POST /images/load": "BuildInfo",
}
"""Answers that are a stream of JSON messages, which the description does not say: the definition of one message."""

REFUSALS = frozenset({400, 403, 404, 409, 413, 501, 503})
"""Any operation may answer these with an ErrorResponse: the description names few of those that dockerd sends."""
